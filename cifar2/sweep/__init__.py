"""Sweeps: the search space, one trial, and all trials on Ray."""

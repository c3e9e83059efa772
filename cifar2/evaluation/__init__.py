"""Scores, metrics, uncertainties and the selection rule."""

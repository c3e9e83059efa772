"""Benchmarks against PyTorch, Ray and DVC on your machine: ``make bench``."""

"""The figures, one module a stage."""

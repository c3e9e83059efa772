"""How fast the project is, measured against PyTorch on the machine at hand: ``make bench``."""

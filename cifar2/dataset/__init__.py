"""CIFAR-10 and what is done to its images before a network sees them."""

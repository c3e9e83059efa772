"""CIFAR-10: download, splits, data augmentation, near-duplicates; and any image file."""

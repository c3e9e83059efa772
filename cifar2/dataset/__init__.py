"""CIFAR-10 or a folder of images: splits, data augmentation, near-duplicates; and any image file."""

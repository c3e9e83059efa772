"""The CNN, pretrained backbones, and any classifier on disk."""

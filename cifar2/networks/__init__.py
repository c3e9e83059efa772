"""The other networks, and any of them on disk."""

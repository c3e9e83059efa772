"""Many configurations: which, one of them, all of them on Ray."""

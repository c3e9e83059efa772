"""How good a classifier is, and which one is selected."""

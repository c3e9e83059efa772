"""The PNG figures, one module per stage."""

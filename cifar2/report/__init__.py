"""The figures, and the page that shows a whole run."""

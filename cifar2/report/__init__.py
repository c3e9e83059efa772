"""The page that shows a whole run, and its charts."""

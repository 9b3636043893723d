"""Maps: what programs keep between runs and share with Python."""

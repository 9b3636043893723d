"""The command line: files.py finds out what a FILE is, app.py holds the commands."""

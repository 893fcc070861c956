"""Folders and tables as files, and how what is in them is called."""

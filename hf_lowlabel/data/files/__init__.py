"""Files of folders and tables, and their naming rules."""

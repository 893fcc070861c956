"""Data sets: folders, tables, the Hub, streams, memory and the embedded ones."""

"""Labeling by a person: the folder to label, the pages, and the resulting labels."""

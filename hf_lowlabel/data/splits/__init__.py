"""Splits of a data set, and its labeled images."""

"""Which image is of which split, and which are labeled."""

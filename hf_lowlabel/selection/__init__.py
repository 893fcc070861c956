"""Which images to label, and what the labels there are say of the others."""

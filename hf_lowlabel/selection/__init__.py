"""Selection of images to label, and prior pseudo-labels of the rest."""

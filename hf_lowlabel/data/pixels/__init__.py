"""Files of images and masks, opened and read."""

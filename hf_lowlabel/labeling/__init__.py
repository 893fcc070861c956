"""What a person says of chosen images: the folder to label, the pages, and the labels that come back."""

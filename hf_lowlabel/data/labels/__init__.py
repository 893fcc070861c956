"""Labels as people write them in tables."""

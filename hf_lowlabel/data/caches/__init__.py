"""Decoded images, and how they reach the training device."""

"""Images: where they come from, which are labeled, and how they reach the training device."""

from .dataset import ImageDataset, join, load_source
from .image_cache import build_cache
from .splits import Split, make_split, manifest

__all__ = ["ImageDataset", "Split", "build_cache", "join", "load_source", "make_split", "manifest"]

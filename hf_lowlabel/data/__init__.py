"""Images: where they come from, which are labeled, and how they reach the training device."""

from .dataset import ImageDataset, join
from .drawing import make_split
from .image_cache import build_cache
from .opening import load_segmentation, load_source, open_dataset
from .splits import Split, manifest

__all__ = [
    "ImageDataset",
    "Split",
    "build_cache",
    "join",
    "load_segmentation",
    "load_source",
    "make_split",
    "manifest",
    "open_dataset",
]

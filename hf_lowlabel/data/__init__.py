"""Images: where they come from, which are labeled, and how they reach the training device."""

from .caches.image_cache import build_cache
from .dataset import ImageDataset
from .joining import join
from .opening import load_segmentation, load_source, open_dataset
from .splits.drawing import make_split
from .splits.splits import Split, manifest

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

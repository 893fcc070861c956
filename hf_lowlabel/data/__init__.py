"""Images: where they come from, which are labeled, and how they reach the training device."""

from .pools import build_pool
from .sources import Source, join, load_source
from .splits import Split, make_split, manifest

__all__ = ["Source", "Split", "build_pool", "join", "load_source", "make_split", "manifest"]

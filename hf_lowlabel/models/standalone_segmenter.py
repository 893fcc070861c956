"""A segmenter on an encoder that timm lacks, in a process without this package: it travels with the weights.

Imports nothing but the files that lie beside it, where an import registers the encoder's name with timm.
"""

from __future__ import annotations

from .cifar import WideResNet  # noqa: F401
from .plain import PlainCNN  # noqa: F401
from .segmenter import LowLabelForSemanticSegmentation
from .wrapped import TransformersEncoder  # noqa: F401

__all__ = ["LowLabelForSemanticSegmentation"]

"""Models: a timm network inside a transformers model, saved in timm's own layout."""

from .backbone import LowLabelBackbone
from .classifier import LowLabelForImageClassification
from .loading import LoadReport, create_backbone, create_classifier
from .travelling import brings_code

__all__ = [
    "LoadReport",
    "LowLabelBackbone",
    "LowLabelForImageClassification",
    "brings_code",
    "create_backbone",
    "create_classifier",
]

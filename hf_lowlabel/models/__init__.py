"""Models: a timm network inside a transformers model, saved in timm's own layout."""

from .backbone import LowLabelBackbone
from .cifar import needs_package
from .classifier import LowLabelForImageClassification
from .loading import LoadReport, create_backbone, create_classifier

__all__ = [
    "LoadReport",
    "LowLabelBackbone",
    "LowLabelForImageClassification",
    "create_backbone",
    "create_classifier",
    "needs_package",
]

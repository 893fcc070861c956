"""Networks that timm lacks, in a process without this package: this file and theirs travel with the weights.

    AutoModelForImageClassification.from_pretrained(FOLDER, trust_remote_code=True)

Imports nothing but transformers and the files that lie beside it, where an import registers their names with timm.
"""

from __future__ import annotations

from transformers import TimmWrapperForImageClassification, TimmWrapperModel

from .cifar import WideResNet  # noqa: F401
from .plain import PlainCNN  # noqa: F401
from .wrapped import TransformersEncoder  # noqa: F401


class StandaloneBackbone(TimmWrapperModel):
    """transformers' own backbone over a timm network, whose architecture the files beside this one bring."""


class StandaloneClassifier(TimmWrapperForImageClassification):
    """transformers' own classifier over a timm network, whose architecture the files beside this one bring."""

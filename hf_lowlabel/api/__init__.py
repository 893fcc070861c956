"""The two verbs that train, as Python functions."""

from .finetuning import finetune
from .pretraining import pretrain

__all__ = ["finetune", "pretrain"]

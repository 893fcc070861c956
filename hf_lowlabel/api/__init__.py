"""The two verbs that train, and the one that measures, as Python functions."""

from .evaluating import evaluate
from .finetuning import finetune
from .pretraining import pretrain

__all__ = ["evaluate", "finetune", "pretrain"]

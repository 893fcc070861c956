"""What somebody in Python has in hand, from one step to the next: chosen ids, a Split, a launch, plain mistakes."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch

from hf_lowlabel import (
    Callback,
    FinetuneObjective,
    PretrainObjective,
    Split,
    UserError,
    auto,
    evaluate,
    finetune,
    load_source,
    make_split,
    pretrain,
    priors,
    push,
    report,
    select,
)
from hf_lowlabel.once_per_step import OncePerStep
from hf_lowlabel.records import RunRecord
from tests.test_open_api import FINETUNE, PRETRAIN, SMALL, equal, frame, table

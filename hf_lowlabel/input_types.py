"""Accepted types of data and models, for type checkers only: it imports what it names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from PIL import Image
from torch import nn

from .data import ImageDataset

Picture = str | Path | Image.Image | np.ndarray
# a path or Hub id; data of `datasets` or pandas in memory; images with labels (None: unlabeled); what is open already
Table = datasets.Dataset | datasets.DatasetDict | pd.DataFrame
Data = str | Path | Table | Sequence[tuple[Picture, str | None]] | ImageDataset
Stream = datasets.IterableDataset | datasets.IterableDatasetDict  # with sharded
# a timm name, folder or Hub id; a module of timm; a model that create_classifier or create_backbone made; a run
Model = str | os.PathLike[str] | nn.Module

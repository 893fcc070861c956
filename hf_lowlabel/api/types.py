"""What may be handed over as data and as model. For type checkers alone: it imports what it names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import pandas as pd
from torch import nn

# a path or Hub id; data of `datasets` or pandas in memory; images with their labels (None: unlabeled)
Data = str | Path | datasets.Dataset | datasets.DatasetDict | pd.DataFrame | Sequence[tuple[str | Path, str | None]]
# a timm name, folder or Hub id; a module of timm; a model that create_classifier or create_backbone made
Model = str | Path | nn.Module

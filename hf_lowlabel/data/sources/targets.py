"""How the targets of a data set are read: what differs between tasks when a folder, a table or a list is opened."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..dataset import ImageDataset, make_dataset
from .tables import Table


class Targets:
    """What `open_dataset` asks; a class for each kind of target.

    embedded: name -> function of the split, for sets that come with the library. every_split: a column of a
    table that says of which split a row is means nothing. label_column: that is asked for.
    """

    embedded: Mapping[str, Callable[[str], ImageDataset]] = {}
    every_split = False
    label_column: str | None = None

    def lays_out(self, path: Path) -> bool:
        """Is this folder laid out for these targets, so that `folder` reads it even when it holds parquet too?"""
        return False

    def folder(self, path: Path, split: str) -> ImageDataset:
        """A folder of files. Raises MissingSplit, or UserError for what is no such folder."""
        raise NotImplementedError

    def table(self, table: Table) -> ImageDataset:
        """The rows of a table: parquet, the Hub, or memory."""
        raise NotImplementedError

    def pairs(self, values: Sequence) -> tuple[str, pa.Array | pa.ChunkedArray]:
        """(name, column) of a table in which `table` finds the targets of a list of (path, target) pairs; None is
        none."""
        raise NotImplementedError

    def label_in(self, columns: Collection[str]) -> str | None:
        """Which column holds labels that are text, if any."""
        return None

    def mask_names(self) -> Sequence[str]:
        """Which columns may hold masks, the first before others."""
        return ()


class ImagesAlone(Targets):
    """Of tables, whatever labels they have and whichever splits they name."""

    every_split = True

    def table(self, table: Table) -> ImageDataset:
        reader, ids = table.images()
        return make_dataset(table.origin, ids, np.full(len(ids), -1), [], table.content(reader), reader)

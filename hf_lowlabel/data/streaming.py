"""Images of a data set that is read as it comes (`datasets` with streaming=True), never stored whole.

Each rank reads its own shards. What it reads is a function of (seed, rank, ranks, position): in each epoch the rank's
shards come in a new order, and rows are shuffled inside windows of `window` rows. A resume gives the position and reads
up to it again, without decoding; for data that fits a disk, a StreamingPool resumes at once and shuffles fully.
"""
from __future__ import annotations

import io
import itertools
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from .images import BadImage, decode, open_image, resampling
from .order import order
from .tables import find_image, hub_facts, id_columns, load, open_local

Row = tuple[str, dict]  # (id, {"bytes", "path"} of the encoded image)


class ShardedStream:
    """Unlabeled images for pretraining, with the `stream` of a pool; the number of images need not be known.

    dataset: a Hub id or local parquet, as for `load_source`. position: how many images this rank has already been
    given, over all epochs. window: rows shuffled together, held encoded. max_bad: the share of unreadable images above
    which to stop.
    """

    def __init__(
        self, dataset: str | Path, *, config: str | None = None, split: str = "train", revision: str | None = None,
        image_column: str | None = None, size: int, interpolation: str = "bilinear", device: str | torch.device = "cpu",
        seed: int = 0, rank: int = 0, world: int = 1, position: int = 0, window: int = 1024, workers: int | None = None,
        max_bad: float = 0.01,
    ):  # fmt: skip
        resampling(interpolation)
        path = Path(dataset).expanduser()
        if path.exists():
            self.name, self.revision = path.resolve().name, None
            self.dataset = open_local(path, config, split, streaming=True)
        else:
            self.name = str(dataset)
            self.revision, _ = hub_facts(self.name, revision)
            self.dataset = load(self.name, config, split, streaming=True, revision=self.revision)
        self.image_column = find_image(self.dataset.features, image_column)
        self.id_column = next(iter(id_columns(self.dataset.features)), None)
        self.size, self.interpolation, self.device = size, interpolation, torch.device(device)
        self.seed, self.rank, self.world, self.position, self.window = seed, rank, world, position, window
        self.workers = min(os.cpu_count() or 1, 16) if workers is None else max(workers, 1)
        self.max_bad, self.seen, self.skipped = max_bad, 0, []
        self.own_shards = self.dataset.num_shards >= world
        if not self.own_shards:
            warnings.warn(f"{self.name!r} has {self.dataset.num_shards} shards for {world} ranks: each rank reads all "
                          f"of it and keeps one row in {world}; more files would be read "
                          "faster", stacklevel=2)  # fmt: skip

    def shard(self, number: int) -> Iterator[Row]:
        """The rows of one shard, encoded; a row without an id column is called <shard>:<row>."""
        import datasets

        rows = self.dataset.shard(self.dataset.num_shards, number)
        rows = rows.select_columns([name for name in (self.image_column, self.id_column) if name])
        for i, row in enumerate(rows.cast_column(self.image_column, datasets.Image(decode=False))):
            yield str(row[self.id_column]) if self.id_column else f"{number}:{i}", row[self.image_column]

    def epoch(self, epoch: int) -> Iterator[Row]:
        """This rank's rows of one epoch, in order."""
        if self.own_shards:
            shards, first, stride = list(range(self.rank, self.dataset.num_shards, self.world)), 0, 1
        else:
            shards, first, stride = list(range(self.dataset.num_shards)), self.rank, self.world
        turn = order(self.seed, "stream/shards", epoch * len(shards), len(shards), len(shards))
        rows = itertools.chain.from_iterable(self.shard(shards[i]) for i in turn)
        rows = itertools.islice(rows, first, None, stride)
        for number in itertools.count():
            window = list(itertools.islice(rows, self.window))
            if not window:
                return
            shuffle = order(self.seed, f"stream/rows/{self.rank}/{epoch}/{number}", 0, len(window), len(window))
            yield from (window[i] for i in shuffle)

    def rows(self) -> Iterator[Row]:
        """This rank's rows from `position` on, epoch after epoch."""
        epoch, skip = 0, self.position
        while True:
            count = 0
            for count, row in enumerate(self.epoch(epoch), start=1):
                if count > skip:
                    yield row
            if not count:
                raise UserError(f"found no rows in {self.name!r} for rank {self.rank} of {self.world}; expected at "
                                "least one; fix: fewer ranks, or more data")  # fmt: skip
            passed = max(skip // count, 1)  # every epoch has the same number of rows
            epoch, skip = epoch + passed, max(skip - passed * count, 0)

    def stream(self, index_batches: Iterable[Tensor], prefetch: int = 4) -> Iterator[Tensor]:
        """uint8 [n, 3, S, S] on the device, as many images as each batch of indices has; which ones, the stream
        decides.

        One thread reads, `workers` decode, up to `prefetch` batches ahead.
        """
        rows, counts = self.rows(), (len(batch) for batch in index_batches)
        pin = self.device.type == "cuda"
        with ThreadPoolExecutor(self.workers) as decoders, ThreadPoolExecutor(1) as reader:

            def read(count: int) -> tuple[Tensor, list[tuple[str, str]]]:
                images, bad = self.fill(list(decoders.map(self.decode, itertools.islice(rows, count))))
                return (images.pin_memory() if pin else images), bad

            waiting = deque(reader.submit(read, count) for count in itertools.islice(counts, prefetch))
            try:
                while waiting:
                    images, bad = waiting.popleft().result()
                    if (count := next(counts, None)) is not None:
                        waiting.append(reader.submit(read, count))
                    self.count(len(images), bad)
                    self.position += len(images)
                    yield images.to(self.device, non_blocking=pin)
            finally:
                for future in waiting:
                    future.cancel()

    def decode(self, row: Row) -> Tensor | tuple[str, str]:
        """uint8 [3, S, S], or (id, reason)."""
        id, encoded = row
        try:
            if encoded is None or (encoded["bytes"] is None and encoded["path"] is None):
                raise BadImage("the row has no image")
            content = encoded["bytes"]
            with open_image(io.BytesIO(content) if content is not None else encoded["path"]) as image:
                return decode(image, self.size, self.interpolation)
        except BadImage as error:
            return id, error.reason

    def fill(self, decoded: list) -> tuple[Tensor, list[tuple[str, str]]]:
        """A bad image's place is taken by the next good one of its batch, so that a position stays a number of rows."""
        good = [i for i, image in enumerate(decoded) if isinstance(image, Tensor)]
        bad = [image for image in decoded if not isinstance(image, Tensor)]
        if not good:
            raise UserError(f"found a whole batch of {len(bad)} images of {self.name!r} that cannot be used, such as "
                            f"{bad[0][0]!r}: {bad[0][1]}; expected images; fix: check the image column "
                            f"{self.image_column!r}")  # fmt: skip
        take = [next((j for j in good if j >= i), good[0]) for i in range(len(decoded))]
        return torch.stack([decoded[j] for j in take]), bad

    def count(self, images: int, bad: list[tuple[str, str]]) -> None:
        self.seen += images
        self.skipped += [item for item in bad if item not in self.skipped]
        if len(self.skipped) > max(self.max_bad * self.seen, self.max_bad * 1000):
            shown = "; ".join(f"{id!r}: {reason}" for id, reason in self.skipped[:5])
            raise UserError(f"found {len(self.skipped)} of {self.seen} images that cannot be used ({shown}); expected "
                            f"at most {self.max_bad:.1%} of them; fix the data, or allow a larger share")  # fmt: skip

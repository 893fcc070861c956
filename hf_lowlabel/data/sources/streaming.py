"""Images of a data set that is read as it comes (`datasets` with streaming=True), never stored whole.

Each rank reads its own shards. What it reads is a function of (seed, rank, ranks, position): in each epoch the rank's
shards come in a new order, and rows are shuffled inside windows of `window` rows. A resume gives the position and reads
up to it again, without decoding; for data that fits a disk, a StreamingCache resumes at once and shuffles fully.
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import MissingSplit, UserError
from ...text import article, percent, warn
from ..caches.decoding import cores
from ..dataset import ImageDataset
from ..files.folders import is_table
from ..labels.columns import column_called
from ..permutation import epoch_permutation
from ..pixels.images import BadImage, decode, resampling
from ..splits.split_names import MAY_SAY
from .memory import NAME, is_split, refuse_nameless, refuse_slice
from .table_paths import Within, beside, is_remote, of_hub, open_encoded
from .tables import (
    card_license,
    find_image,
    find_split,
    hub_facts,
    id_columns,
    is_binary,
    load,
    open_local,
)

EMBEDDED = ("digits", "shapes")
Encoded = dict | Image.Image | None  # {"bytes", "path"}, or decoded where a program's own data is
Row = tuple[str, Encoded]  # (id, image)


class Shards:
    """The files of a data set, opened but not read. dataset: a Hub id, local parquet, or an IterableDataset of
    `datasets`; the rest as for `load_source`.

    count: how many there are. revision: commit on the Hub; None for local files.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        config: str | None = None,
        split: str = "train",
        revision: str | None = None,
        image_column: str | None = None,
    ):
        self.within: Within | None = None  # a program's own data may name any file
        if not isinstance(dataset, (str, Path)):
            if config is not None or revision is not None:
                raise UserError("A data set in memory has no config and no revision. Leave them out.")
            self.name, self.revision, self.license, self.dataset = NAME, None, None, of_memory(dataset, split)
        elif (path := Path(dataset).expanduser()).exists() and not is_table(path) or str(dataset) in EMBEDDED:
            raise UserError(f"{str(dataset)!r} has no shards, as parquet files and Hub ids have. Read it whole.")
        elif path.exists():
            self.name, self.revision, self.license = path.resolve().name, None, card_license(path)
            self.dataset, self.within = open_local(path, config, split, streaming=True), beside(path)
        else:
            refuse_nameless(str(dataset))
            self.name = str(dataset)
            self.revision, self.license = hub_facts(self.name, revision)
            self.dataset = load(self.name, config, split, streaming=True, revision=self.revision)
            self.within = of_hub(self.name)
        features = self.dataset.features
        if features is None:
            raise UserError(
                f"{self.name!r} does not say which columns it has before it is read, as streams of CSV and JSON do "
                "not. Give parquet, declare them (features= of from_generator or map), or read it whole (without "
                "--sharded)."
            )
        if column := column_called(list(features), MAY_SAY):
            warn(
                f"The column {column!r} of {self.name!r} is not read with --sharded: rows that it says are of another "
                "split are taken too. Give files of one split, or read it whole (without --sharded)."
            )
        self.told = False  # that rows are large
        self.config, self.split, self.count = config, split, self.dataset.num_shards
        self.image_column = find_image(features, image_column, self.within is None)
        self.id_column = next(iter(id_columns(features)), None)

    def rows(self, number: int) -> Iterator[Row]:
        """The rows of one shard, encoded; a row without an id column is called <shard>:<row>."""
        import datasets

        rows = self.dataset.shard(self.count, number)
        rows = rows.select_columns([name for name in (self.image_column, self.id_column) if name])
        if not is_binary(self.dataset.features[self.image_column]):
            rows = rows.cast_column(self.image_column, datasets.Image(decode=False))
        for i, row in enumerate(rows):
            image = row[self.image_column]
            image = {"bytes": image, "path": None} if isinstance(image, bytes) else image
            if isinstance(image, Image.Image) and not self.told:
                self.tell_decoded()
            yield str(row[self.id_column]) if self.id_column else f"{number}:{i}", image

    def tell_decoded(self) -> None:
        self.told = True
        warn(
            f"The rows of {self.name!r} hold decoded images, thousands of which are kept in memory. Give the Hub id "
            "itself, load it with decode_num_threads=0, or make the images small."
        )

    def sample(self, images: int) -> ImageDataset:
        """The first rows of up to 32 shards spread over all of them, about `images` in total, held encoded and without
        labels. The fingerprint is that of the sample and the number of shards."""
        numbers = np.unique(np.linspace(0, self.count - 1, min(self.count, 32)).astype(int)).tolist()
        each = -(-images // len(numbers))
        rows = {f"{n}:{i}": row for n in numbers for i, row in enumerate(itertools.islice(self.rows(n), each))}
        digest = hashlib.sha256(f"{self.count}".encode())
        for id, encoded in rows.values():
            digest.update(f"\n{id}\0{zlib.crc32(content_of(encoded))}".encode())
        return ImageDataset(
            name=self.name,
            config=self.config,
            split=self.split,
            revision=self.revision,
            license=self.license,
            ids=list(rows),
            labels=np.full(len(rows), -1),
            class_names=[],
            fingerprint=digest.hexdigest(),
            flip=True,
            reader=EncodedReader([encoded for _, encoded in rows.values()], self.within),
        )


class EncodedReader:
    """Rows that are held in memory as they were read. within: which files they may name."""

    def __init__(self, rows: list[Encoded], within: Within | None):
        self.rows, self.within = rows, within

    def __call__(self, i: int) -> Image.Image:
        return open_row(self.rows[i], self.within)

    def ends(self, i: int) -> bytes:
        return b""


def open_row(encoded: Encoded, within: Within | None) -> Image.Image:
    if isinstance(encoded, Image.Image):
        return encoded.copy()  # which is closed after use
    return open_encoded(*((encoded or {}).get(key) for key in ("bytes", "path")), within)


def content_of(encoded: Encoded) -> bytes:
    """What the fingerprint is to know of an image: the bytes, or which file of the Hub it is."""
    if isinstance(encoded, Image.Image):
        return encoded.tobytes()
    content, path = ((encoded or {}).get(key) for key in ("bytes", "path"))
    return content or (path.encode() if path and is_remote(path) else b"")


def of_memory(dataset: Any, split: str):
    """The IterableDataset that is given, or the split of several; without a format, which would decode.

    Raises:
        UserError: it is something else, or has no such split.
    """
    import datasets

    refuse_slice(split)
    own = split
    if isinstance(dataset, datasets.IterableDatasetDict):
        dataset = dataset[find_split(split, list(dataset), NAME)]
    elif isinstance(dataset, datasets.IterableDataset):
        own = str(dataset.split or "train")
    else:
        raise UserError(
            f"Data in memory is not read shard by shard, and this is {article(type(dataset).__name__)}. Leave out "
            "sharded, or give a Hub id, parquet, or an IterableDataset (Dataset.to_iterable_dataset)."
        )
    if not is_split(split, own):
        raise MissingSplit(f"There is no split {split!r} in an IterableDataset: it is {own!r}. Give that split.")
    return dataset.with_format(None)


class ShardedStream:
    """Unlabeled images for pretraining, with the `stream` of a cache; the number of images need not be known.

    position: how many images this rank has already been given, over all epochs. window: rows shuffled together, held
    encoded. max_bad: the share of unreadable images above which to stop.
    """

    nbytes = 0  # of decoded images held

    def __init__(
        self,
        shards: Shards,
        *,
        size: int,
        interpolation: str = "bilinear",
        squash: bool = False,
        device: str | torch.device = "cpu",
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        position: int = 0,
        window: int = 1024,
        workers: int | None = None,
        max_bad: float = 0.01,
    ):
        resampling(interpolation)
        self.shards, self.name = shards, shards.name
        self.square = {"size": size, "interpolation": interpolation, "squash": squash}
        self.device = torch.device(device)
        self.seed, self.rank, self.world, self.position, self.window = seed, rank, world, position, window
        self.workers = cores() if workers is None else max(workers, 1)
        self.max_bad, self.seen, self.skipped = max_bad, 0, []
        self.own_shards = shards.count >= world
        if not self.own_shards and rank == 0:
            warn(
                f"{self.name!r} has {shards.count} shards for {world} ranks: each rank reads all "
                f"of it and keeps one row in {world}; more files would be read "
                "faster"
            )

    def epoch(self, epoch: int) -> Iterator[Row]:
        """This rank's rows of one epoch, in order."""
        if self.own_shards:
            shards, first, stride = list(range(self.rank, self.shards.count, self.world)), 0, 1
        else:
            shards, first, stride = list(range(self.shards.count)), self.rank, self.world
        turn = epoch_permutation(self.seed, "stream/shards", epoch * len(shards), len(shards), len(shards))
        rows = itertools.chain.from_iterable(self.shards.rows(shards[i]) for i in turn)
        rows = itertools.islice(rows, first, None, stride)
        for number in itertools.count():
            window = list(itertools.islice(rows, self.window))
            if not window:
                return
            shuffle = epoch_permutation(
                self.seed, f"stream/rows/{self.rank}/{epoch}/{number}", 0, len(window), len(window)
            )
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
                raise UserError(
                    f"There are no rows in {self.name!r} for rank {self.rank} of {self.world}. Use fewer ranks, or "
                    "more data."
                )
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
            with open_row(encoded, self.shards.within) as image:
                return decode(image, **self.square)
        except BadImage as error:
            return id, error.reason

    def fill(self, decoded: list) -> tuple[Tensor, list[tuple[str, str]]]:
        """A bad image's place is taken by the next good one of its batch, so that a position stays a number of rows."""
        good = [i for i, image in enumerate(decoded) if isinstance(image, Tensor)]
        bad = [image for image in decoded if not isinstance(image, Tensor)]
        if not good:
            raise UserError(
                f"A whole batch of {len(bad)} images of {self.name!r} cannot be used, such as {bad[0][0]!r}: "
                f"{bad[0][1]}. Check the image column {self.shards.image_column!r}."
            )
        take = [next((j for j in good if j >= i), good[0]) for i in range(len(decoded))]
        return torch.stack([decoded[j] for j in take]), bad

    def count(self, images: int, bad: list[tuple[str, str]]) -> None:
        self.seen += images
        self.skipped += [item for item in bad if item not in self.skipped]
        if len(self.skipped) > max(self.max_bad * self.seen, self.max_bad * 1000):
            shown = "; ".join(f"{id!r}: {reason}" for id, reason in self.skipped[:5])
            raise UserError(
                f"{len(self.skipped)} of {self.seen} images cannot be used ({shown}), and at most "
                f"{percent(self.max_bad)} of them may be bad. Repair the data, or allow a larger share (--max-bad)."
            )

"""Parquet files and data sets on the Hub, through `datasets` (data only: no code of a data set is ever run).

Images stay encoded as they are in the table; they are opened one by one from the memory-mapped Arrow files.
"""

from __future__ import annotations

import bisect
import io
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from ..errors import MissingSplit, UserError, unknown
from .dataset import ImageDataset, check_labels, fingerprint
from .folders import LABEL_COLUMNS, SPLITS, class_order, label_text
from .images import BadImage, open_image

ID_COLUMNS = ("id", "image_id", "filename", "file_name")
IMAGE_COLUMNS = ("image", "img", "images", "picture", "pixel_values")


class TableReader:
    """Row i of an image column, {bytes, path} as `datasets` keeps it."""

    def __init__(self, dataset):
        self.dataset, self.chunks = dataset, None  # one column; the chunks are views, not pickled

    def __getstate__(self):
        return {"dataset": self.dataset, "chunks": None}

    def columns(self):
        """([first row of each chunk], [bytes of each chunk], [paths of each chunk])."""
        if self.chunks is None:
            parts = self.dataset.data.column(0).chunks
            starts = np.cumsum([0] + [len(part) for part in parts])[:-1].tolist()
            fields = [dict(zip((f.name for f in part.type), part.flatten())) for part in parts]  # flatten minds nulls
            self.chunks = starts, [f["bytes"] for f in fields], [f["path"] for f in fields]
        return self.chunks

    def __call__(self, i: int) -> Image.Image:
        starts, contents, paths = self.columns()
        chunk = bisect.bisect_right(starts, i) - 1
        content = contents[chunk][i - starts[chunk]].as_py()
        if content is not None:
            return open_image(io.BytesIO(content))
        path = paths[chunk][i - starts[chunk]].as_py()
        if path is None:
            raise BadImage("the row has no image")
        return open_image(path)

    def content(self) -> Iterator[str]:
        """For the fingerprint, of each encoded image: its size and the checksum of its last 64 bytes.

        The size alone would not tell uncompressed images apart, whose ids may be mere row numbers; all bytes would mean
        reading all of a large table.
        """
        _, contents, _ = self.columns()
        for part in contents:
            for size, tail in zip(pc.binary_length(part).to_pylist(), pc.binary_slice(part, -64, None).to_pylist()):
                yield "none" if size is None else f"{size}:{zlib.crc32(tail)}"


def load_parquet(
    path: Path, config: str | None, split: str, image_column: str | None, label_column: str | None
) -> ImageDataset:
    dataset = open_local(path, config, split)
    name, split = (path.stem, split) if path.is_file() else (path.resolve().name, str(dataset.split))
    return from_dataset(dataset, name, config, split, None, card_license(path), image_column, label_column)


def open_local(path: Path, config: str | None, split: str, *, streaming: bool = False):
    """A file is one split, "train" or the one its name begins with; a folder has those that its file names tell."""
    if path.is_file():
        word = re.match(r"[a-z]+", path.name.lower())
        known = {"train", next((key for key, names in SPLITS.items() if word and word[0] in names), "train")}
        if split not in known:
            raise MissingSplit(
                f"found split {split!r} for the single file {path.name!r}; expected "
                f"{' or '.join(sorted(known))}; fix: give the file of that split, or a folder with one "
                "file per split"
            )
        return load("parquet", None, "train", streaming=streaming, data_files=str(path))
    if (path / "metadata.parquet").exists():
        raise UserError(
            f"found metadata.parquet in {str(path)!r}; expected metadata.csv or metadata.jsonl beside images"
        )
    return load(str(path), config, split, streaming=streaming)


def load_hub(
    name: str, config: str | None, split: str, revision: str | None, image_column: str | None, label_column: str | None
) -> ImageDataset:
    revision, license = hub_facts(name, revision)
    dataset = load(name, config, split, revision=revision)
    config = dataset.config_name if dataset.config_name != "default" else config
    return from_dataset(dataset, name, config, str(dataset.split), revision, license, image_column, label_column)


def hub_facts(name: str, revision: str | None) -> tuple[str | None, str | None]:
    """(commit sha, license): the branch "main" moves, a commit does not."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().dataset_info(name, revision=revision)
    except RevisionNotFoundError as error:
        refs = HfApi().list_repo_refs(name, repo_type="dataset")
        known = [ref.name for ref in (*refs.branches, *refs.tags)]
        raise unknown(f"revision of {name!r}", str(revision), known) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"found neither a path nor a data set on the Hub called {name!r}; expected one of them; fix: "
            "check the spelling, or log in with `hf auth login` if it is private"
        ) from error
    except Exception as error:  # no network or a Hub that is down: what the cache holds may do
        warnings.warn(
            f"the Hub does not answer ({type(error).__name__}: {error}); trying the cache of {name!r}, whose "
            "commit is not known",
            stacklevel=4,
        )
        return revision, None
    return info.sha, one_license(info.card_data)


def card_license(path: Path) -> str | None:
    from huggingface_hub import DatasetCard

    readme = (path if path.is_dir() else path.parent) / "README.md"
    if not readme.is_file() or not readme.read_text(encoding="utf-8", errors="replace").startswith("---"):
        return None
    return one_license(DatasetCard.load(readme, ignore_metadata_errors=True).data)


def one_license(card) -> str | None:
    found = card.get("license") if card is not None else None
    return " and ".join(map(str, found)) if isinstance(found, list) else found


def load(name: str, config: str | None, split: str, *, streaming: bool = False, **options):
    """`datasets.load_dataset` of one split, with its errors in words a user can act on."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(name, config, **options)
        files = getattr(builder.config, "data_files", None)
        known = list(files) if files else list(builder.info.splits or ())
        split = "+".join(find_split(part, known, name) for part in split.split("+")) if known else split
        return datasets.load_dataset(name, config, split=split, streaming=streaming, **options)
    except UserError:
        raise
    except datasets.exceptions.DatasetsError as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise UserError(f"found data set {name!r} that cannot be read: {error}{cause}") from error
    except ConnectionError as error:
        raise UserError(
            f"found no file or folder {name!r} here, no copy in the cache, and the Hub cannot be reached; expected one of them; "
            "fix: check the path, or connect"
        ) from error
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        raise config_error(name, config, options.get("revision"), error) from error


def config_error(name: str, config: str | None, revision: str | None, error: Exception) -> UserError:
    if "onfig" not in str(error):  # BuilderConfig ... not found; Config name is missing
        return UserError(f"found data set {name!r} that cannot be read: {error}")
    import datasets

    known = datasets.get_dataset_config_names(name, revision=revision)
    if config is None:
        return UserError(
            f"found no config for {name!r}; expected one of {', '.join(known)}; fix: --dataset-config {known[0]}"
        )
    return unknown(f"config of {name!r}", config, known)


def find_split(asked: str, known: Sequence[str], name: str) -> str:
    """The name the data set uses ("val" for "validation"); a slice such as train[:100] keeps its brackets."""
    base, bracket, rest = asked.partition("[")
    group = next((names for key, names in SPLITS.items() if base == key or base in names), ())
    for candidate in (base, *group):
        if candidate in known:
            return candidate + bracket + rest
    raise unknown(f"split of {name!r}", base, known, MissingSplit)


def from_dataset(dataset, name, config, split, revision, license, image_column, label_column) -> ImageDataset:
    import datasets

    if dataset._indices is not None:
        dataset = dataset.flatten_indices()
    image = find_image(dataset.features, image_column)
    label = find_label(dataset.features, label_column)
    if not len(dataset):
        raise UserError(f"found no rows in {name!r} (split {split!r}); expected at least one image")
    images = dataset.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    reader = TableReader(images)
    ids = find_ids(dataset)
    labels, names = (
        read_labels(dataset.data.column(label), dataset.features[label], label, ids)
        if label
        else (np.full(len(ids), -1, dtype=np.int64), [])
    )
    return ImageDataset(
        name=name,
        config=config,
        split=split,
        revision=revision,
        ids=ids,
        labels=labels,
        class_names=names,
        fingerprint=fingerprint(ids, labels, names, reader.content()),
        license=license,
        flip=True,
        reader=reader,
    )


def is_image(feature) -> bool:
    import datasets

    kind = getattr(feature, "dtype", None)
    struct = isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    return isinstance(feature, datasets.Image) or struct or kind in ("binary", "large_binary")


def find_image(features, asked: str | None) -> str:
    found = [column for column, feature in features.items() if is_image(feature)]
    if asked is not None:
        if asked not in features:
            raise unknown("image column", asked, features)
        if asked not in found:
            raise UserError(
                f"found column {asked!r} of type {features[asked]}; expected images (encoded bytes); "
                f"columns with images: {', '.join(found) or 'none'}"
            )
        return asked
    for name in IMAGE_COLUMNS:
        if name in found:
            return name
    if len(found) != 1:
        raise UserError(
            f"found {len(found)} columns with images ({', '.join(found) or 'none'}) among "
            f"{', '.join(features)}; expected one; fix: name it with --image-column"
        )
    return found[0]


def find_label(features, asked: str | None) -> str | None:
    """The label column: as asked, or by its name, or the only one that declares classes; None when there is none."""
    import datasets

    if asked is not None:
        if asked not in features:
            raise unknown("label column", asked, features)
        return asked
    for name in LABEL_COLUMNS:
        if name in features:
            return name
    declared = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if len(declared) > 1:
        raise UserError(
            f"found {len(declared)} columns with classes: {', '.join(declared)}; expected one; fix: name "
            f"it with --label-column {declared[0]}"
        )
    return declared[0] if declared else None


def id_columns(features) -> list[str]:
    return [name for name in ID_COLUMNS if getattr(features.get(name), "dtype", "") in ("string", "int64", "int32")]


def find_ids(dataset) -> list[str]:
    for name in id_columns(dataset.features):
        ids = [str(value) for value in dataset.data.column(name).to_pylist() if value is not None]
        if len(ids) == len(dataset) == len(set(ids)):
            return ids
    return [str(row) for row in range(len(dataset))]


def read_labels(column: pa.ChunkedArray, feature, name: str, ids: list[str]) -> tuple[np.ndarray, list[str]]:
    """(int64 [N], class names). Declared classes keep their numbers; other values are classes by their text."""
    values, declared = column.to_pylist(), getattr(feature, "names", None)
    if declared is not None:
        labels = np.array([-1 if value is None else value for value in values], dtype=np.int64)
        check_labels(labels, declared, ids)
        return labels, list(declared)
    kind = column.type
    if not (
        pa.types.is_integer(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_floating(kind)
    ):
        raise UserError(f"found label column {name!r} of type {kind}; expected whole numbers, text or declared classes")
    if pa.types.is_floating(kind):  # whole numbers with holes become floats on their way through pandas
        values = [None if value is None or np.isnan(value) else value for value in values]
    for id, value in zip(ids, values, strict=True):
        if isinstance(value, (int, float)) and (value < -1 or value != int(value)):
            raise UserError(
                f"found label {value} of image {id!r} in column {name!r} out of range; expected whole "
                "numbers from 0, or -1 for an image without a label"
            )
    texts = [label_text(value) for value in values]
    names = class_order(text for text in texts if text is not None)
    index = {text: k for k, text in enumerate(names)}
    return np.array([index.get(text, -1) for text in texts], dtype=np.int64), names

"""Tables of encoded images: parquet files and data sets on the Hub, through `datasets` (data only: no code of a data
set is ever run), and what is in memory already.

Images stay encoded as they are in the table; they are opened one by one from the memory-mapped Arrow files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from ...errors import MissingSplit, UserError, unknown
from ...text import warn
from ..dataset import Origin
from ..files.folders import SPLITS, spellings
from ..labels.columns import TEXT
from ..splits.table_splits import Part, rows_of_split
from .table_paths import Within, beside, of_hub
from .table_reader import TableReader

ID_COLUMNS = ("id", "image_id", "filename", "file_name")
IMAGE_COLUMNS = ("image", "img", "images", "picture", "pixel_values")
PATH_COLUMNS = ("path", "image_path", "file_path", "file", "file_name", "filename")  # of images, in memory only
BINARY = ("binary", "large_binary", "binary_view")


class Table:
    """The rows of one split, of a `datasets.Dataset`. image_column: as asked. within: which files it may name; None:
    any, for it is in memory and not read from a file of ours."""

    def __init__(self, part: Part, origin: Origin, image_column: str | None, within: Within | None):
        rows, self.part = part.rows, part
        if not len(rows):
            raise UserError(f"There are no rows in {origin.name!r} (split {origin.split!r}).")
        self.rows = rows.flatten_indices() if rows._indices is not None else rows
        self.origin, self.asked, self.within, self.in_memory = origin, image_column, within, within is None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def features(self):
        return self.rows.features

    def column(self, name: str) -> pa.ChunkedArray:
        return self.rows.data.column(name)

    def reader(self, column: str) -> TableReader:
        import datasets

        rows = self.rows.select_columns([column])
        if getattr(self.features[column], "dtype", None) == "binary_view":  # of which `datasets` makes no images
            rows = rows.cast_column(column, datasets.Value("large_binary"))
        return TableReader(rows.cast_column(column, datasets.Image(decode=False)), self.within)

    def images(self, besides: str | None = None) -> tuple[TableReader, list[str]]:
        """(reader, ids) of the image column: as asked, by its name, or the only one beside `besides`."""
        features = {name: feature for name, feature in self.features.items() if name != besides}
        column = find_image(features, self.asked, self.in_memory)
        reader = self.reader(column)
        if self.part.kept is not None:  # ids are those among all rows, whose labels and predictions go by them
            whole = Table(Part(self.part.whole, ""), self.origin, column, self.within)
            named = find_ids(self, column) if find_ids(whole, column) is None else None
            if named and not {*named} & {*map(str, range(len(whole)))}:  # numbered anew in each split, not as rows are
                return reader, named
            ids = whole.images(besides)[1]
            return reader, [ids[k] for k in self.part.kept]
        named = find_ids(self, column) or self.in_memory and reader.file_ids()
        return reader, named or [str(i) for i in range(len(self))]

    def content(self, *readers: TableReader) -> Iterator[str]:
        """For the fingerprint: what `TableReader.content` says of each row."""
        return map("/".join, zip(*(reader.content(self.in_memory) for reader in readers), strict=True))


def open_parquet(
    path: Path,
    config: str | None,
    split: str,
    image_column: str | None,
    every: bool = False,
    label: str | None = None,
) -> Table:
    name = path.stem if path.is_file() else path.resolve().name
    part = rows_of_split(lambda one: open_local(path, config, one), split, name, every=every, label=label)
    origin = Origin(name, split if path.is_file() else part.called, config, None, card_license(path))
    return Table(part, origin, image_column, beside(path))


def open_hub(
    name: str,
    config: str | None,
    split: str,
    revision: str | None,
    image_column: str | None,
    every: bool = False,
    label: str | None = None,
) -> Table:
    revision, license = hub_facts(name, revision)
    part = rows_of_split(lambda one: load(name, config, one, revision=revision), split, name, every=every, label=label)
    config = part.rows.config_name if part.rows.config_name != "default" else config
    return Table(part, Origin(name, part.called, config, revision, license), image_column, of_hub(name))


def open_local(path: Path, config: str | None, split: str, *, streaming: bool = False):
    """A file is one split, "train" or the one its name begins with; a folder has those that its file names tell."""
    if path.is_file():
        word = re.match(r"[a-z]+", path.name.lower())
        known = {"train", next((key for key, names in SPLITS.items() if word and word[0] in names), "train")}
        base, bracket, rest = split.partition("[")  # a slice, as of the Hub
        if known.isdisjoint(spellings(base)):
            raise MissingSplit(
                f"The single file {path.name!r} is split {' or '.join(sorted(known))}, not {split!r}. Give the file "
                "of that split, or a folder with one file per split."
            )
        return load("parquet", None, "train" + bracket + rest, streaming=streaming, data_files=str(path))
    return load(str(path), config, split, streaming=streaming)


def hub_facts(name: str, revision: str | None) -> tuple[str | None, str | None]:
    """(commit sha, license): the branch "main" moves, a commit does not."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().dataset_info(name, revision=revision)
    except RevisionNotFoundError as error:
        refs = HfApi().list_repo_refs(name, repo_type="dataset")
        known = [ref.name for ref in (*refs.branches, *refs.tags)]
        raise unknown(f"revision of {name!r}", str(revision), known) from error
    except GatedRepoError as error:
        raise UserError(
            f"{name!r} is gated. Accept its conditions on its page on the Hub and log in with `hf auth login`, or take "
            "other data."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{name!r} is neither a path nor a data set on the Hub. Check the spelling, or log in with `hf auth "
            "login` if it is private."
        ) from error
    except Exception as error:  # no network or a Hub that is down: what the cache holds may do
        if not cached(name):
            raise UserError(
                f"There is no file or folder {name!r} here, no copy in the cache, and the Hub cannot be reached "
                f"({type(error).__name__}). Check the path, or connect."
            ) from error
        warn(
            f"the Hub does not answer ({type(error).__name__}: {error}); trying the cache of {name!r}, whose "
            "commit is not known"
        )
        return revision, None
    return info.sha, one_license(info.card_data)


def cached(name: str) -> bool:
    """Whether there may be a copy of a data set of the Hub on this machine."""
    import datasets
    from huggingface_hub import constants

    folders = (
        Path(datasets.config.HF_DATASETS_CACHE, name.replace("/", "___")),
        Path(constants.HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}"),
    )
    return any(folder.is_dir() for folder in folders)


def card_license(path: Path) -> str | None:
    from huggingface_hub import DatasetCard

    readme = (path if path.is_dir() else path.parent) / "README.md"
    card = readme.read_text(encoding="utf-8-sig", errors="replace") if readme.is_file() else ""
    if not card.startswith("---"):
        return None
    try:
        return one_license(DatasetCard(card, ignore_metadata_errors=True).data)
    except Exception as error:  # whatever YAML there is in it, the data can be read
        warn(f"the licence in {readme.name} cannot be read: {type(error).__name__}")
        return None


def one_license(card) -> str | None:
    found = card.get("license") if card is not None else None
    return " and ".join(map(str, found)) if isinstance(found, list) else found


def load(name: str, config: str | None, split: str, *, streaming: bool = False, **options):
    """`datasets.load_dataset` of one split, with its errors in words a user can act on."""
    import datasets

    shown = options.get("data_files", name)  # of one file
    try:
        builder = datasets.load_dataset_builder(name, config, **options)
        files = getattr(builder.config, "data_files", None)
        known = list(files) if files else list(builder.info.splits or ())
        if streaming and hasattr(builder.config, "decode_num_threads"):
            options["decode_num_threads"] = 0  # else images come decoded, many at once
        split = "+".join(find_split(part, known, name) for part in split.split("+")) if known else split
        return datasets.load_dataset(name, config, split=split, streaming=streaming, **options)
    except UserError:
        raise
    except datasets.exceptions.DatasetsError as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        if "BatchSize must be greater than 0" in cause:  # of the rows of a file's first group
            raise UserError(
                f"There are no rows in {shown!r}, or in one of its parquet files. Leave that out."
            ) from error
        raise UserError(f"The data set {shown!r} cannot be read: {error}{cause}") from error
    except ConnectionError as error:
        raise UserError(
            f"There is no file or folder {name!r} here, no copy in the cache, and the Hub cannot be reached. Check "
            "the path, or connect."
        ) from error
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        if "onfig" not in str(error):
            raise UserError(f"The data set {shown!r} cannot be read: {error}") from error
        raise config_error(name, config, options.get("revision"), error) from error


def config_error(name: str, config: str | None, revision: str | None, error: Exception) -> UserError:
    """Of "BuilderConfig ... not found", or "Config name is missing"."""
    import datasets

    known = datasets.get_dataset_config_names(name, revision=revision)
    if config is None:
        return UserError(f"{name!r} has the configs {', '.join(known)}. Name one with --dataset-config {known[0]}.")
    return unknown(f"config of {name!r}", config, known)


def find_split(asked: str, known: Sequence[str], name: str) -> str:
    """The name the data set uses ("val" for "validation"); a slice such as train[:100] keeps its brackets."""
    base, bracket, rest = asked.partition("[")
    for candidate in spellings(base):
        if candidate in known:
            return candidate + bracket + rest
    raise unknown(f"split of {name!r}", base, known, MissingSplit)


def is_image(feature, paths: bool = False) -> bool:
    """Encoded images; with `paths` also text, which may be paths."""
    import datasets

    kind = getattr(feature, "dtype", None)
    fields = feature if isinstance(feature, dict) else {}
    of_paths = getattr(fields.get("bytes"), "dtype", None) == "null" and "path" in fields
    struct = is_binary(fields.get("bytes")) or of_paths
    return isinstance(feature, datasets.Image) or struct or is_binary(feature) or paths and kind in TEXT


def is_binary(feature) -> bool:
    return getattr(feature, "dtype", None) in BINARY


def asked_column(features, asked: str, kind: str, paths: bool = False) -> str:
    """`asked`, if it is a column of images. kind: "image" or "mask", for the message."""
    if asked not in features:
        raise unknown(f"{kind} column", asked, features)
    if not is_image(features[asked], paths):
        found = ", ".join(column for column, feature in features.items() if is_image(feature)) or "none"
        raise UserError(
            f"The {kind} column {asked!r} is of type {features[asked]}, not of encoded images. Columns with images: "
            f"{found}."
        )
    return asked


def find_image(features, asked: str | None, in_memory: bool = False) -> str:
    if asked is not None:
        return asked_column(features, asked, "image", in_memory)
    found = [column for column, feature in features.items() if is_image(feature)]
    texts = [column for column, feature in features.items() if in_memory and is_image(feature, paths=True)]
    for name in IMAGE_COLUMNS:
        if name in found or name in texts:
            return name
    found = [column for column in found if not is_binary(features[column])] or found  # which may be anything
    if not found:
        found = [name for name in PATH_COLUMNS if name in texts][:1]
    if len(found) != 1:
        raise UserError(
            f"There are {len(found)} columns with images ({', '.join(found) or 'none'}) among {', '.join(features)}. "
            "Name one with --image-column."
        )
    return found[0]


def id_columns(features) -> list[str]:
    return [name for name in ID_COLUMNS if getattr(features.get(name), "dtype", "") in (*TEXT, "int64", "int32")]


def find_ids(table: Table, image_column: str) -> list[str] | None:
    """The values of the first column of ids that has one for each row. In memory, no paths of this machine."""
    for name in id_columns(table.features):
        ids = [str(value) for value in table.column(name).to_pylist() if value is not None]
        usable = not table.in_memory or name != image_column and not any(map(os.path.isabs, ids))
        if usable and len(ids) == len(table) == len(set(ids)):
            return ids
    return None

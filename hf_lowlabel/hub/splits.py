"""Which images were labeled, published: manifests and prior pseudo-labels as configurations of a data set on the Hub.

    push_split("split.json", "org/pets-splits", name="pets-40")     then    --split hub:org/pets-splits/pets-40@REVISION

A configuration is a folder: `split.json`, the manifest itself; `labeled.jsonl`, `validation.jsonl` and `test.jsonl`,
its images as rows that `datasets.load_dataset("org/pets-splits", "pets-40")` and the Hub's viewer read; and, where
there are some, `priors.safetensors`, the prior pseudo-labels.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from huggingface_hub import DatasetCard
from safetensors import SafetensorError, safe_open

from ..data.splits.published import parse
from ..data.splits.splits import Split
from ..distributed import is_main_process
from ..errors import UserError
from ..text import series
from .once import by_another
from .upload import Uploaded, check_target, upload

# endings of what `load_dataset` finds by itself in a repository without configurations
DATA = frozenset(
    ".csv .tsv .json .jsonl .ndjson .parquet .arrow .xml .txt .lance .h5 .hdf5 .png .jpg .jpeg .jp2 .tif .tiff .bmp "
    ".gif .webp .avif .ppm .wav .mp3 .flac .ogg .mp4 .avi .mkv .pdf .zip .tar .gz .tgz .bz2 .xz .zst .lz4 .7z".split()
)
NO_DATA = ("license.txt", "licence.txt", "requirements.txt", "dataset_infos.json", "citation.txt")
README = """---
tags:
- hf_lowlabel
---
# {title}

Which images are labeled, and which are held out for validation and test: one configuration per manifest. The images
themselves are not here; each manifest names the data set it was made for, its revision and its fingerprint.

Train with one of them (`@REVISION` pins it to a commit or tag):

```bash
hf-lowlabel finetune --dataset DATASET --split hub:{repo}/CONFIGURATION@REVISION
```

Look at one of them:

```python
from datasets import load_dataset

print(load_dataset("{repo}", "CONFIGURATION"))
```
"""


def push_split(
    split: Split | str | Path,
    repo_id: str,
    *,
    name: str | None = None,
    priors: str | Path | None = None,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> Uploaded:
    """Publish a manifest (and prior pseudo-labels made for it) as configuration `name` of data set `repo_id`.

    A configuration that is there already with another manifest, or other priors, is refused: what people compare by
    should not change; so is a repository that is a data set without configurations, which the first one would hide.
    Priors may come later than their manifest. Of a launch of several processes the first one
    uploads, whether it calls this alone or all do; in the others it returns at once, with an empty `commit`.
    Raises UserError, and PushError where the Hub did not take it.
    """
    check_target(repo_id, create_pr, revision)
    first = is_main_process()
    if not first and not isinstance(split, Split) and not Path(split).is_file():  # on the disk of another machine
        return by_another(repo_id, "dataset")
    split = split if isinstance(split, Split) else Split.load(split)
    name = name or default_name(split)
    parse(f"hub:{repo_id}/{name}")
    files: dict[str, Path | bytes | None] = {f"{name}/{file}": content for file, content in rows(split).items()}
    if priors is not None and (first or Path(priors).is_file()):
        files[f"{name}/priors.safetensors"] = check_priors(Path(priors), split)
    if not first:  # what needs no network was asked of all, so that none waits for one that raised
        return by_another(repo_id, "dataset")
    fixed = {"split.json": "another manifest", "priors.safetensors": "other prior pseudo-labels for a manifest"}

    def make(remote) -> dict[str, Path | bytes | None]:
        for file, other in fixed.items():
            path = f"{name}/{file}"
            if path in remote.files and path in files and not remote.holds({path: files[path]}):
                raise UserError(
                    f"{repo_id} has {other} called {name!r} already, which others may have used. Give a new --name."
                )
        old = remote.read("README.md") if "README.md" in remote.files else None
        return {**files, "README.md": readme(old, repo_id, name, split, remote.files).encode()}

    message = (
        f"{name}: {len(split.labeled)} labeled, {len(split.validation)} validation and {len(split.test)} test images"
    )
    return upload(
        make,
        repo_id,
        type="dataset",
        message=message,
        private=private,
        create_pr=create_pr,
        revision=revision,
        token=token,
    )


def default_name(split: Split) -> str:
    words = f"{split.dataset.rpartition('/')[2]}-{len(split.labeled)}" + (
        f"-seed{split.seed}" if split.seed is not None else ""
    )
    return re.sub(r"[^\w.-]+", "-", words).strip("-")


def rows(split: Split) -> dict[str, bytes]:
    """split.json as it is saved, and a table of rows for each part that has images."""
    held = {part: {id: split.held_labels.get(id) for id in getattr(split, part)} for part in ("validation", "test")}
    out = {"split.json": split.text().encode()}
    for part, images in {"labeled": split.labeled, **held}.items():
        has_labels = part == "labeled" or any(images.values())
        lines = [{"id": id, "label": label} if has_labels else {"id": id} for id, label in images.items()]
        if lines:
            out[f"{part}.jsonl"] = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    return out


def readme(old: bytes | None, repo_id: str, name: str, split: Split, files: list[str]) -> str:
    """The repository's own page with one more configuration in its metadata; its words stay.

    Args:
        old: README.md that is there.
        repo_id: of the repository.
        name: of the configuration.
        split: the manifest.
        files: in the repository.

    Raises:
        UserError: the page cannot be read, another configuration has the name, or the repository is a data set that
            the first configuration would hide.
    """
    card, configs = _configs(old, repo_id)
    ours = {path.partition("/")[0] for path in files if path.count("/") == 1 and path.endswith("/split.json")}
    if name not in ours and name in (c["config_name"] for c in configs):
        raise UserError(f"{repo_id} has a configuration {name!r} of its own, which is no manifest. Give a new --name.")
    if not configs and (data := [path for path in files if _is_data(path, ours)]):
        raise UserError(
            f"{repo_id} is a data set of its own ({series(data[:3])}), without configurations: load_dataset finds its "
            f"files by itself, and would no longer where the split is one. Push to a repository for splits, such as "
            f"{repo_id}-splits."
        )
    if len(configs) == 1 and configs[0]["config_name"] not in ours:
        configs[0].setdefault("default", True)  # it is still what load_dataset opens without a name
    parts = [part.removesuffix(".jsonl") for part in rows(split) if part.endswith(".jsonl")]
    at = [{"split": part, "path": f"{name}/{part}.jsonl"} for part in parts]
    configs = [c for c in configs if c["config_name"] != name] + [{"config_name": name, "data_files": at}]
    card.data["configs"] = sorted(configs, key=lambda c: c["config_name"])
    return str(card)


def _configs(old: bytes | None, repo_id: str) -> tuple[DatasetCard, list[dict[str, Any]]]:
    """The page of a repository, and the configurations that it names. Raises UserError where they cannot be read."""
    try:
        page = README.format(title=repo_id.rpartition("/")[2], repo=repo_id) if old is None else old.decode("utf-8-sig")
        card = DatasetCard(page, ignore_metadata_errors=False)
        configs = card.data.get("configs") or []
    except (yaml.YAMLError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"The block at the top of README.md in {repo_id} cannot be read ({said}). Mend it there, or push to "
            f"{repo_id}-splits."
        ) from None
    named = isinstance(configs, list) and all(
        isinstance(c, dict) and isinstance(c.get("config_name"), str) for c in configs
    )
    if not named:
        raise UserError(
            f"The `configs` at the top of README.md in {repo_id} are no list of mappings that each have a "
            f"`config_name`. Mend them there, or push to {repo_id}-splits."
        )
    return card, configs


def _is_data(path: str, ours: set[str]) -> bool:
    """Whether `load_dataset` would take a file of a repository for data. ours: folders that hold manifests."""
    parts = PurePosixPath(path).parts
    hidden = any(part.startswith((".", "__")) for part in parts)
    return (
        not hidden
        and parts[0] not in ours
        and parts[-1].lower() not in NO_DATA
        and PurePosixPath(path).suffix.lower() in DATA
    )


def check_priors(path: Path, split: Split) -> Path:
    try:
        with safe_open(path, "np") as file:
            names = json.loads((file.metadata() or {})["class_names"])
            count = file.get_slice("priors").get_shape()[1]
    except (SafetensorError, OSError, KeyError, IndexError, ValueError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} holds no prior pseudo-labels ({error}). Give a file that `hf-lowlabel priors` wrote."
        ) from None
    if sorted(names) != sorted(split.class_names) or count != len(names):
        raise UserError(
            f"The prior pseudo-labels are of {len(names)} classes ({series(names[:5])}), which are not those of the "
            f"split ({series(split.class_names[:5])}). Make them from this split."
        )
    return path

"""Which images were labeled, published: manifests and prior pseudo-labels as configurations of a data set on the Hub.

    push_split("split.json", "org/pets-splits", name="pets-40")     then    --split hub:org/pets-splits/pets-40@REVISION

A configuration is a folder: `split.json`, the manifest itself; `labeled.jsonl`, `validation.jsonl` and `test.jsonl`,
its images as rows that `datasets.load_dataset("org/pets-splits", "pets-40")` and the Hub's viewer read; and, where
there are some, `priors.safetensors`, the prior pseudo-labels.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from huggingface_hub import DatasetCard
from safetensors import SafetensorError, safe_open

from ..data.published import parse
from ..data.splits import Split
from ..distributed import is_main_process
from ..errors import UserError
from ..text import series
from .once import by_another
from .upload import Uploaded, upload

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
    should not change. Priors may come later than their manifest. Of a launch of several processes the first one
    uploads, whether it calls this alone or all do; in the others it returns at once, with an empty `commit`.
    Raises UserError, and PushError where the Hub did not take it.
    """
    if not is_main_process():
        return by_another(repo_id, "dataset")
    split = split if isinstance(split, Split) else Split.load(split)
    name = name or default_name(split)
    parse(f"hub:{repo_id}/{name}")
    files: dict[str, Path | bytes | None] = {f"{name}/{file}": content for file, content in rows(split).items()}
    if priors is not None:
        files[f"{name}/priors.safetensors"] = check_priors(Path(priors), split)
    fixed = {"split.json": "another manifest", "priors.safetensors": "other prior pseudo-labels for a manifest"}

    def make(remote) -> dict[str, Path | bytes | None]:
        for file, other in fixed.items():
            path = f"{name}/{file}"
            if path in remote.files and path in files and not remote.holds({path: files[path]}):
                raise UserError(
                    f"{repo_id} has {other} called {name!r} already, which others may have used. Give a new --name."
                )
        old = remote.read("README.md").decode() if "README.md" in remote.files else None
        return {**files, "README.md": readme(old, repo_id, name, split).encode()}

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


def readme(old: str | None, repo_id: str, name: str, split: Split) -> str:
    """The repository's own page with one more configuration in its metadata; its words stay."""
    card = DatasetCard(
        old or README.format(title=repo_id.rpartition("/")[2], repo=repo_id), ignore_metadata_errors=False
    )
    configs = [c for c in card.data.get("configs") or [] if c.get("config_name") != name]
    parts = [part.removesuffix(".jsonl") for part in rows(split) if part.endswith(".jsonl")]
    files = [{"split": part, "path": f"{name}/{part}.jsonl"} for part in parts]
    configs.append({"config_name": name, "data_files": files})
    card.data["configs"] = sorted(configs, key=lambda c: c["config_name"])
    return str(card)


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

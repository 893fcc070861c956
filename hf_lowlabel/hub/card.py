"""README.md of a run folder: a model card rendered from the facts the run recorded, without network.

The layout is in `model_cards/*.md` (Jinja, through huggingface_hub's ModelCard); what stands in it is computed here.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..methods import METHODS, find
from ..records import RunRecord, Stage, write_text
from .card_parts import (
    SHORT,
    cell,
    code,
    duration,
    limits,
    method_name,
    needs_package,
    results_table,
    settings,
    snippets,
)

log = logging.getLogger(__name__)
TASKS = {
    "classification": "image-classification",
    "backbone": "image-feature-extraction",
    "segmentation": "image-segmentation",
}
LABELS_ALONE = ("supervised", "probe", "knn")  # methods that learn from nothing else, unless they are given priors
PICTURES = {
    "curves.png": "training curves",
    "predictions.png": "test images with predictions",
    "confusion.png": "confusion matrix",
    "reliability.png": "reliability diagram",
}
LICENSES = frozenset(  # identifiers that the Hub knows; any other becomes `license: other` with a name
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigcode-openrail-m afl-3.0 artistic-2.0 "
    "bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 "
    "cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 "
    "cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl "
    "ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 "
    "isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl unknown "
    "other".split()
)


def write_card(folder: str | Path, facts: RunRecord) -> Path:
    """Writes README.md into the folder, atomically, and returns its path; it parses back through `ModelCard.load`.

    A licence that somebody wrote into the card that is there already is kept when the facts give none.
    """
    folder, facts = Path(folder), facts.public()
    path = folder / "README.md"
    given = facts.license or _license_there(path)
    name = facts.name or (facts.hub_id or "").rpartition("/")[2] or folder.resolve().name
    model_id = facts.hub_id or folder.resolve().name
    found = [picture for picture in PICTURES if (folder / picture).is_file()]
    if facts.kind == "segmentation":  # overlays say more than curves
        found.sort(key=lambda picture: picture != "predictions.png")
    words = dict(
        title=cell(name),
        summary=summary(facts),
        picture=dict(file=found[0], alt=f"{name}: {PICTURES[found[0]]}") if found else None,
        more=" · ".join(f"[{PICTURES[p]}]({p})" for p in found[1:]),
        results=results_table(facts),
        model_id=model_id,
        snippets=snippets(facts, model_id),
        use=_intended_use(facts),
        limits=limits(facts),
        made=_made(facts),
        command=facts.command,
        details=settings(facts),
        licence=_license_words(facts, given),
    )
    card = ModelCard.from_template(metadata(facts, name, given), template_path=str(template(facts.kind)), **words)
    text = re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"
    ModelCard(text)  # raises when the metadata cannot be read back
    write_text(path, text)
    return path


def write_card_safely(folder: str | Path, facts: RunRecord) -> Path | None:
    """`write_card` for use while a model is saved: a card that fails is a warning with its reason, and None."""
    try:
        return write_card(folder, facts)
    except Exception as error:  # whatever a card runs into, the model beside it has to be saved
        log.warning("no model card was written to %s: %s: %s", folder, type(error).__name__, error)
        return None


def template(kind: str) -> Path:
    """model_cards/KIND.md: inside an installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "model_cards", package.parent / "model_cards"):
        if (folder / f"{kind}.md").is_file():
            return folder / f"{kind}.md"
    raise FileNotFoundError(f"found no model_cards/{kind}.md in or beside {package}; the installation is not complete")


def metadata(facts: RunRecord, name: str, license: str | None) -> ModelCardData:
    """The YAML block: what the Hub filters by, and `model-index` with this model's test results."""
    values: dict[str, Any] = {}
    if license:
        known = license.lower() in LICENSES
        values["license"] = license.lower() if known else "other"
        if not known:
            values["license_name"] = re.sub(r"[^a-z0-9.]+", "-", license.lower()).strip("-")
    bases = [stage.hub_id for stage in facts.lineage if stage.hub_id and stage.hub_id != facts.hub_id]
    results = _eval_results(facts)
    tags = ["hf_lowlabel", "timm", *_tags(facts), *facts.extra_tags]
    return ModelCardData(
        base_model=bases[-1] if bases else None,
        datasets=[facts.data.hub_id] if facts.data and facts.data.hub_id else None,
        eval_results=results or None,
        model_name=name if results else None,
        library_name="hf_lowlabel" if needs_package(facts.architecture) else "transformers",
        pipeline_tag=TASKS[facts.kind],
        metrics=[name for name in ("accuracy", "mean_iou") if {"mean_iou": "miou"}.get(name, name) in facts.metrics]
        or None,
        tags=tags,
        **values,
    )


def _tags(facts: RunRecord) -> list[str]:
    tags = [stage.method for stage in facts.lineage if stage.method] + ([facts.method] if facts.method else [])
    alone = facts.method in LABELS_ALONE and not facts.hyperparameters.get("prior")
    return tags + (["semi-supervised"] if facts.labels and not alone else [])


def _eval_results(facts: RunRecord) -> list[EvalResult]:
    if facts.data is None:
        return []
    where = dict(
        task_type=TASKS[facts.kind],
        dataset_type=facts.data.hub_id or re.sub(r"[^\w.-]+", "-", facts.data.name).strip("-") or "local",
        dataset_name=facts.data.name,
        dataset_config=facts.data.config,
        dataset_revision=facts.data.revision,
        dataset_split=facts.data.test_split,
    )
    return [
        EvalResult(
            metric_type="mean_iou" if key == "miou" else key,
            metric_name=SHORT[key][0],
            metric_value=round(float(facts.metrics[key]), 6),
            **where,
        )
        for key in SHORT
        if facts.metrics.get(key) is not None and not (key == "top5_accuracy" and len(facts.class_names) <= 5)
    ]


def _license_there(path: Path) -> str | None:
    """The licence in a card written earlier, under the name its author gave it."""
    if not path.is_file():
        return None
    data = ModelCard.load(path, ignore_metadata_errors=True).data
    return data.get("license_name") or data.get("license")


def _license_words(facts: RunRecord, license: str | None) -> str:
    known = [
        f"{stage.name or stage.what}: {stage.license or 'not recorded'}"
        for stage in facts.lineage
        if stage.what == "pretrained weights"
    ]
    known += [f"data set {facts.data.name}: {facts.data.license or 'not recorded'}"] if facts.data else []
    came_from = f" What it was made from: {cell('; '.join(known))}." if known else ""
    if license:
        return f"This model: {cell(license)}.{came_from}"
    return (
        "**Not given yet.** The author of this model has to state its licence: add `license:` to the block at the "
        f"top of this file before sharing it.{came_from}"
    )


def summary(facts: RunRecord) -> str:
    """One or two sentences: what it does, from how many labels."""
    data = f" of {_data_link(facts)}" if facts.data else ""
    if facts.kind == "backbone":
        which = f" (`{facts.architecture}`)" if facts.architecture else ""
        what = f"An image encoder{which} adapted without labels to the images{data}"
        return what + (f", with {method_name(facts.method)}." if facts.method else ".")
    classes = f"{len(facts.class_names):,} classes" if facts.class_names else "classes"
    masks = facts.kind == "segmentation"
    words = f"Sorts {'every pixel of ' if masks else ''}images{data} into {classes}"
    if facts.labels:
        pool = facts.data.images if facts.data else None
        words += f", learned from **{facts.labels.number:,} {'images with masks' if masks else 'labeled images'}**"
        words += f" among {pool:,}" if pool and facts.method != "supervised" else ""
    words += f" with {method_name(facts.method)}" if facts.method else ""
    before = [stage.method for stage in facts.lineage if stage.what == "target pretraining" and stage.method]
    return words + (f", after target pretraining with {method_name(before[-1])}" if before else "") + "."


def _intended_use(facts: RunRecord) -> str:
    if not facts.data:
        return ""
    size = f", seen at {facts.image_size} px" if facts.image_size else ""
    return f"Meant for images like those it was trained on: {_data_link(facts)}{size}."


def _data_link(facts: RunRecord) -> str:
    data = facts.data
    return (
        f"[{cell(data.name)}](https://huggingface.co/datasets/{data.hub_id})" if data.hub_id else f"*{cell(data.name)}*"
    )


def _stage(stage: Stage) -> str:
    name = code(stage.name or stage.hub_id) if stage.name or stage.hub_id else ""
    name = f"[{name}](https://huggingface.co/{stage.hub_id})" if name and stage.hub_id else name
    words = f"{stage.what} {name}".strip()
    words += f" at revision `{stage.revision[:12]}`" if stage.revision else ""
    words += f" with {method_name(stage.method)}" if stage.method else ""
    words += f" on {stage.images:,} images" if stage.images else ""
    words += f" of {cell(stage.dataset)}" if stage.dataset else ""
    return words + (f", {stage.steps:,} steps" if stage.steps else "")


def _made(facts: RunRecord) -> list[str]:
    """Lineage, data, labels, time; a line for what is recorded and none for what is not."""
    lines = ["Lineage: " + " → ".join(map(_stage, facts.lineage))] if facts.lineage else []
    data, labels = facts.data, facts.labels
    if data:
        parts = [
            _data_link(facts),
            data.config and f"configuration `{data.config}`",
            data.split and f"split `{data.split}`",
            data.revision and f"revision `{data.revision[:12]}`",
            data.images and f"{data.images:,} training images",
            data.unlabeled_from and f"more unlabeled images from *{cell(data.unlabeled_from)}*",
            data.fingerprint and f"fingerprint `{data.fingerprint[:12]}`",
        ]
        lines.append("Data: " + ", ".join(p for p in parts if p))
    if labels:
        counts = sorted({n for n in labels.per_class.values() if n})
        spread = (
            f", {counts[0]} per class"
            if len(counts) == 1
            else f", {counts[0]} to {counts[-1]} per class"
            if counts
            else ""
        )
        lines.append(
            f"Labels: {labels.number:,}{spread}" + (f", chosen {cell(labels.chosen)}" if labels.chosen else "")
        )
        lines += (
            [f"Which images: [split.json](split.json), sha256 `{labels.split_hash[:16]}`"] if labels.split_hash else []
        )
    if facts.seconds is not None:
        where = facts.hardware.get("gpu") or facts.hardware.get("cpu")
        steps = f"{facts.steps:,} steps in " if facts.steps else ""
        lines.append(f"Training: {steps}{duration(facts.seconds)}" + (f" on {cell(where)}" if where else ""))
    paper = find(facts.method) if facts.method in METHODS else None
    if paper and paper.arxiv:
        lines.append(f"Paper of the method: [{paper.paper}, {paper.year}](https://arxiv.org/abs/{paper.arxiv})")
    return lines

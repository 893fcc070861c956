"""README.md of a run folder: a model card rendered from what the run recorded, without network.

The layout is in `model_cards/card.md` (Jinja); what stands in it is computed here.
"""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..data.sources.memory import NAME as MEMORY
from ..files import write_text
from ..licences import metadata as metadata_of
from ..methods import METHODS, find
from ..records import Labels, RunRecord, Stage
from ..tasks import of_record
from ..text import cell, code, duration, listed
from .card_parts import columns, ladder_table, limits, method_name, results_table, settings

log = logging.getLogger(__name__)
LABELS_ALONE = ("supervised", "probe", "knn")  # methods that learn from nothing else, unless they are given priors
NOT_GIVEN = (
    "**Not given yet.** The author of this model has to state its licence: add `license:` to the block at the top of "
    "this file before sharing it."
)
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


def write_card(folder: str | Path, record: RunRecord) -> Path:
    """Writes README.md into the folder, atomically, and returns its path; it parses back through `ModelCard.load`.

    A licence that somebody wrote into the card that is there already is kept.
    """
    folder, record = Path(folder), record.public()
    path = folder / "README.md"
    old = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
    given = license_values(old, record, str(path))
    name = record.name or (record.hub_id or "").rpartition("/")[2] or folder.resolve().name
    model_id = record.hub_id or folder.resolve().name
    found = [picture for picture in PICTURES if (folder / picture).is_file()]
    speaks = of_record(record.kind)
    found.sort(key=lambda picture: picture != speaks.first_picture)
    words = dict(
        next_step=speaks.next_step(model_id),
        title=cell(name),
        summary=summary(record),
        picture=dict(file=found[0], alt=f"{name}: {PICTURES[found[0]]}") if found else None,
        more=" · ".join(f"[{PICTURES[p]}]({p})" for p in found[1:]),
        results=results_table(record),
        ladder=ladder_table(record),
        advice=[cell(line) for line in record.advice],
        model_id=model_id,
        snippets=speaks.snippets(record, model_id),
        use=_intended_use(record),
        limits=limits(record),
        made=_made(record),
        command=record.command,
        details=settings(record),
        licence=_license_words(record, given),
    )
    data = metadata(record, name, given)
    layout = compiled(template().read_text(encoding="utf-8"))
    card = ModelCard(layout.render(card_data=data.to_yaml(), **(data.to_dict() | words)))
    text = re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"
    ModelCard(text)  # raises when the metadata cannot be read back
    write_text(path, text)
    return path


def write_card_safely(folder: str | Path, record: RunRecord) -> Path | None:
    """`write_card` for use while a model is saved: a card that fails is a warning with its reason, and None."""
    try:
        return write_card(folder, record)
    except Exception as error:  # whatever a card runs into, the model beside it has to be saved
        log.warning("no model card was written to %s: %s: %s", folder, type(error).__name__, error)
        return None


@functools.cache
def compiled(layout: str) -> jinja2.Template:
    """Once: every checkpoint of a run has a card, and compiling costs most of it."""
    return jinja2.Template(layout)


def template() -> Path:
    """model_cards/card.md: inside an installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "model_cards", package.parent / "model_cards"):
        if (folder / "card.md").is_file():
            return folder / "card.md"
    raise FileNotFoundError(f"found no model_cards/card.md in or beside {package}; the installation is not complete")


def license_values(card: str, record: RunRecord, source: str = "the card") -> dict[str, Any]:
    """What the metadata of a card are to say of the licence: by identifiers of the Hub, or as another with its name.

    Args:
        card: the one that is there, whose word counts, also where it states none; "" without one.
        record: says it where there is no card.
        source: what a message calls the card.

    Raises:
        UserError: the metadata of the card cannot be read.
    """
    said = metadata_of(card, source) if card else {"license": record.license, "license_link": record.license_link}
    found, link = said.get("license_name") or said.get("license"), said.get("license_link")
    names = [str(name) for name in found] if isinstance(found, list) else [str(found)] if found else []
    if not names:
        return {}
    where = {"license_link": str(link)} if link else {}
    known = [name.lower() for name in names]
    if LICENSES.issuperset(known):
        return {"license": known if isinstance(found, list) else known[0], **where}
    name = re.sub(r"[^a-z0-9.]+", "-", " and ".join(known)).strip("-")
    return {"license": "other", "license_name": name, **where}


def metadata(record: RunRecord, name: str, license: dict[str, Any]) -> ModelCardData:
    """The YAML block: what the Hub filters by, and `model-index` with this model's test results. license: of
    `license_values`."""
    bases = [stage.hub_id for stage in record.lineage if stage.hub_id and stage.hub_id != record.hub_id]
    results, speaks = _eval_results(record), of_record(record.kind)
    tags = ["hf_lowlabel", "timm", *_tags(record), *record.extra_tags]
    return ModelCardData(
        base_model=bases[-1] if bases else None,
        datasets=[record.data.hub_id] if record.data and record.data.hub_id else None,
        eval_results=results or None,
        model_name=name if results else None,
        library_name="transformers",
        pipeline_tag=speaks.pipeline_tag,
        metrics=[m.hub for m in speaks.metrics if m.hub and record.metrics.get(m.key) is not None] or None,
        tags=tags,
        **license,
    )


def _tags(record: RunRecord) -> list[str]:
    tags = [stage.method for stage in record.lineage if stage.method] + ([record.method] if record.method else [])
    alone = record.method in LABELS_ALONE and not record.hyperparameters.get("prior")
    return tags + (["semi-supervised"] if record.labels and not alone else [])


def _eval_results(record: RunRecord) -> list[EvalResult]:
    if record.data is None:
        return []
    where = dict(
        task_type=of_record(record.kind).pipeline_tag,
        dataset_type=record.data.hub_id or re.sub(r"[^\w.-]+", "-", record.data.name).strip("-") or "local",
        dataset_name=record.data.name,
        dataset_config=record.data.config,
        dataset_revision=record.data.revision,
        dataset_split=record.data.test_split,
    )
    shown = columns(of_record(record.kind), [record.metrics], len(record.class_names))
    return [
        EvalResult(
            metric_type=m.hub or m.key,
            metric_name=m.title,
            metric_value=round(float(record.metrics[m.key]), 6),
            **where,
        )
        for m in shown
    ]


def license_sentence(license: str | None) -> str:
    """What the section on the licence begins with."""
    return f"This model: {cell(license)}." if license else NOT_GIVEN


def _license_words(record: RunRecord, given: dict[str, Any]) -> str:
    known = [
        f"{stage.name or stage.what}: {stage.license or 'not recorded'}"
        for stage in record.lineage
        if stage.what == "pretrained weights"
    ]
    known += [f"data set {record.data.name}: {record.data.license or 'not recorded'}"] if record.data else []
    came_from = f" What it was made from: {cell('; '.join(known))}." if known else ""
    license = given.get("license_name") or given.get("license")
    return license_sentence(" and ".join(license) if isinstance(license, list) else license) + came_from


def summary(record: RunRecord) -> str:
    """One or two sentences: what it does, from how many labels."""
    data = f" of {_data_link(record)}" if record.data and record.data.name != MEMORY else ""
    return of_record(record.kind).summary(record, data, method_name)


def _intended_use(record: RunRecord) -> str:
    if not record.data:
        return ""
    speaks = of_record(record.kind)
    at, cropped = speaks.seen_at(record), getattr(speaks, "labeling", "") == "mask" and record.steps
    size = f", seen at {at}" if at else ""
    size += f" (trained on crops of {record.image_size} px)" if at and cropped else ""
    return f"Meant for images like those it was trained on: {_data_link(record)}{size}."


def _data_link(record: RunRecord) -> str:
    data = record.data
    if data.name == MEMORY:
        return "data in memory"
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


def _spread(record: RunRecord, labels: Labels) -> str:
    """How the labels fall on the classes, those without any among them."""
    counts = sorted({*labels.per_class.values()})
    if not any(counts):
        return ""
    words = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    one_each = getattr(of_record(record.kind), "labeling", "class") == "class"
    spread = f", {words} per class" if one_each else f", each class shown by {words} of them"
    return spread + (f" (none: {listed(map(code, labels.without), 20)})" if labels.without else "")


def _made(record: RunRecord) -> list[str]:
    """Lineage, data, labels, time; a line for what is recorded and none for what is not."""
    lines = ["Lineage: " + " → ".join(map(_stage, record.lineage))] if record.lineage else []
    data, labels = record.data, record.labels
    if data:
        parts = [
            _data_link(record),
            data.config and f"configuration `{data.config}`",
            data.split and f"split `{data.split}`",
            data.revision and f"revision `{data.revision[:12]}`",
            data.images and f"{data.images:,} training images",
            data.unlabeled_from and f"more unlabeled images from *{cell(data.unlabeled_from)}*",
            data.fingerprint and f"fingerprint `{data.fingerprint[:12]}`",
        ]
        lines.append("Data: " + ", ".join(p for p in parts if p))
    if labels:
        lines.append(
            f"Labels: {labels.number:,}{_spread(record, labels)}"
            + (f", chosen {cell(labels.chosen)}" if labels.chosen else "")
        )
        lines += (
            [f"Which images: [split.json](split.json), sha256 `{labels.split_hash[:16]}`"] if labels.split_hash else []
        )
    if record.seconds is not None:
        where = record.hardware.get("gpu") or record.hardware.get("cpu")
        steps = f"{record.steps:,} steps in " if record.steps else ""
        lines.append(f"Training: {steps}{duration(record.seconds)}" + (f" on {cell(where)}" if where else ""))
    paper = find(record.method) if record.method in METHODS else None
    if paper and paper.arxiv:
        lines.append(f"Paper of the method: [{paper.paper}, {paper.year}](https://arxiv.org/abs/{paper.arxiv})")
    return lines

"""Label Studio, both ways: tasks and a labeling interface for it, and the labels of its exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.annotations.annotation_files import annotations_of, picture_of
from ..data.files.table_files import plain_name
from ..data.files.uploads import Uploads
from ..data.labels.columns import FILE_COLUMNS, PICTURES, column_called, columns_of
from ..data.labels.labels import joined
from ..errors import UserError
from ..files import read_json
from .answer_kinds import CONTROL, kind_of
from .label_rows import refuse
from .labels import Asked, Labels, class_faults, clean, find_names

TASK_KEYS = {"annotations", "completions", "predictions", "annotation_id", "annotator", "lead_time", "choice"}
CONTROLS = (CONTROL, "choice", "label")  # what a row of JSON-MIN may call its class
OF_ROWS = {"id", "inner_id", "image", "image_id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}


def label_studio_tasks(task: Asked) -> list[dict]:
    """Tasks for Label Studio's import; its local storage root must be this folder
    (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT).
    """
    return [
        {"data": {"image": f"/data/local-files/?d=images/{file}", "image_id": id}} for file, id in task.files.items()
    ]


def label_studio_config(task: Asked) -> str:
    """The labeling interface: one choice, or brushes for masks. Classes that are not known yet are added in its
    settings.
    """
    body = kind_of(task.task).interface(task.class_names or ["class 1", "class 2"])
    return f'<View>\n  <Image name="image" value="$image" zoom="true"/>\n  {body}\n</View>\n'


def is_export(path: Path) -> bool:
    """Whether a .json file is an export of Label Studio, and no table of file names and labels."""
    if path.suffix.lower() != ".json":
        return False
    try:
        content = read_json(path)
    except UserError:
        return True  # which says what is wrong with it
    rows = content if isinstance(content, list) and content and all(isinstance(row, dict) for row in content) else []
    columns = columns_of(rows)
    return bool(rows) and (any(map(is_task, rows)) or column_called(columns, FILE_COLUMNS) is None)


def is_task(row: dict) -> bool:
    """Whether an object is a task of Label Studio: by a key of its own, an address of its server or a choice."""
    texts = [value for value in row.values() if isinstance(value, str)]
    return bool(
        TASK_KEYS & {*row}
        or isinstance(row.get("data"), dict)
        or any("/data/local-files/?d=" in text or "/data/upload/" in text for text in texts)
        or any(isinstance(value, dict) and "choices" in value for value in row.values())
    )


def read_label_studio(
    path: str | Path,
    task: Asked,
    *,
    classes: list[str] | None = None,
    new_classes: bool = False,
    allow_missing: bool = False,
    skip_missing: bool = False,
    several: bool = False,
    skip_conflicts: bool = False,
) -> Labels:
    """The labels of a Label Studio export: JSON (tasks with annotations) or JSON-MIN (one flat object per task).

    An image whose annotation was cancelled, or submitted without a class, was passed over; one without any is open.

    Args:
        path: the file.
        task: what was asked.
        classes: the names a label may have (None or empty: any).
        new_classes: any name counts, beside those.
        allow_missing: images without a task are left unlabeled.
        skip_missing: tasks of other images are left out.
        several: an image may have several classes.
        skip_conflicts: images with two answers are left out and listed.

    Raises:
        UserError: lists every fault.
    """
    path = Path(path)
    tasks = read_json(path, "Give an export of Label Studio (JSON or JSON-MIN).")
    if not isinstance(tasks, list) or not all(
        isinstance(t, dict) and isinstance(t.get("data", t), dict) for t in tasks
    ):
        raise UserError(f"{path.name} is no list of tasks. Give an export of Label Studio (JSON or JSON-MIN).")
    by_file = {clean(name): id for name, id in task.files.items()}
    uploads = Uploads(by_file)
    ids = set(task.files.values())
    out, faults, seen, torn, flags = Labels(), list[str](), set[str](), set[str](), set[str]()
    given, answered = answers(tasks, path.name, several), dict[str, int]()
    rows = [
        (number, {"file_name": picture_of(item) or data.get("image"), "id": clean(data.get("image_id"))})
        for number, item in enumerate(tasks, start=1)
        for data in [item.get("data", item)]
    ]
    find_names(rows, by_file, ids, out.notes)
    for (number, row), found in zip(rows, given):
        name = plain_name(row["file_name"])
        id = row["id"] if row["id"] in ids else by_file.get(name)
        if id is None:
            fault = f"task {number}: no image is {row['id'] or name!r}"
            if skip_missing:
                out.left_out.append((name, fault))
            else:
                faults.append(fault + uploads.why_not(name))
                flags.add("skip_missing")
            continue
        seen.add(id)
        if found is None:
            continue
        first, before = answered.setdefault(id, number), out.labels.get(id, "")
        if len(found) > 1:
            fault = f"task {number}: {id!r} is labeled {' and '.join(map(repr, found))}; keep one annotation"
        elif first != number and "".join(found) != before and id not in torn:
            fault = f"task {number}: {id!r} is {''.join(found)!r} here and {before!r} in task {first}"
        else:
            fault = ""
        if fault and skip_conflicts:
            out.left_out.append((id, fault))
            torn.add(id)
        elif fault:
            faults.append(fault)
            flags.add("skip_conflicts")
        elif found:
            out.labels[id] = found[0]
        else:
            out.skipped.add(id)
    for id in torn:
        out.labels.pop(id, None)
        out.skipped.discard(id)
    missing = [id for id in task.files.values() if id not in seen]
    if missing and not allow_missing:
        faults.append(
            f"{len(missing)} of {len(task.files)} images have no task, such as {missing[0]!r}; export all tasks, or "
            "give --allow-missing to leave them unlabeled"
        )
    refuse(faults + class_faults(out.labels, {}, classes, new_classes, several), path, flags)
    return out


def answers(tasks: list[dict], file: str, several: bool) -> list[list[str] | None]:
    """The labels that each task was given, each once: of several classes one for each annotation. None: nobody has
    answered it yet. Raises UserError where it cannot be told what was answered."""
    said = {
        number: annotations_of(item, f"Task {number} of {file}")
        for number, item in enumerate(tasks, 1)
        if "data" in item
    }
    chosen = {
        number: [
            [r for r in one["result"] if r.get("type") == "choices"] for one in every if not one.get("was_cancelled")
        ]
        for number, every in said.items()
    }
    controls = {str(r.get("from_name") or CONTROL) for every in chosen.values() for results in every for r in results}
    if len(controls) > 1 and CONTROL not in controls:
        raise UserError(
            f"{file} has choices of {' and of '.join(map(repr, sorted(controls)))}, and none is called {CONTROL!r}. "
            f"Write {CONTROL!r} for the one with the classes, the value of its from_name, in the file."
        )
    own = CONTROL if CONTROL in controls else next(iter(controls), CONTROL)
    columns = {key for item in tasks if "data" not in item and control_of(item) for key in item}
    out = list[list[str] | None]()
    for number, item in enumerate(tasks, 1):
        where = f"Task {number} of {file}"
        if "data" in item:
            named = [
                [
                    name
                    for r in results
                    if str(r.get("from_name") or CONTROL) == own
                    for name in names_in(r.get("value"), where)
                ]
                for results in chosen[number]
            ]
            open_ = not said[number]
        else:
            named, open_ = of_row(item, where, columns)
        labels = [sorted({clean(name) for name in names} - {""}) for names in named]
        one_each = list(dict.fromkeys(joined(names) for names in labels if names))
        out.append(None if open_ else one_each if several else sorted(set().union(*labels)))
    return out


def control_of(row: dict) -> str | None:
    """The key of the class in a row of JSON-MIN; None where it has none."""
    return next((key for key in CONTROLS if row.get(key)), None)


def of_row(row: dict, where: str, columns: set[str]) -> tuple[list[list[str]], bool]:
    """The class names of a row of JSON-MIN, and whether nobody has answered it yet.

    Args:
        row: by key.
        where: its number and file.
        columns: the keys of rows that have a class, so that none of these is the class of another.

    Raises:
        UserError: a key of another name may hold its class.
    """
    if key := control_of(row):
        return [names_in([row[key]] if isinstance(row[key], str) else row[key], where)], False
    answered = any(row.get(key) is not None for key in (["annotation_id"] if "annotation_id" in row else CONTROLS))
    strange = {
        key: value for key, value in row.items() if key not in columns | OF_ROWS | {*CONTROLS} and may_be_class(value)
    }
    if strange and (answered or "annotation_id" not in row):
        shown = ", ".join(f"{key!r}: {str(value)[:40]!r}" for key, value in strange.items())
        raise UserError(
            f"{where} has none of the keys {', '.join(CONTROLS)}, and there is {shown}. Call the key with the class "
            f"{CONTROL!r} in all rows, or remove these where they say nothing of it."
        )
    return [], not answered


def may_be_class(value: Any) -> bool:
    """Whether a value of a row of JSON-MIN looks like a choice: text that is no address of a picture."""
    if isinstance(value, dict):
        return bool(value.get("choices"))
    text = value.strip().lower() if isinstance(value, str) else ""
    return bool(text) and "://" not in text and not text.startswith("/data/") and not text.endswith(PICTURES)


def names_in(value: Any, where: str) -> list[str]:
    """The class names of a choice; null is none. Raises UserError where they are no list of names."""
    names = value.get("choices", value) if isinstance(value, dict) else value
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where} has {str(names)[:80]!r} in the place of a list of choices. Export it again.")
    return names

"""Label Studio, both ways: tasks and a labeling interface for it, and the labels of its exports."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..data.annotation_files import picture_of
from ..data.columns import FILE_COLUMNS, column_called
from ..data.labels import joined
from ..data.table_files import plain_name
from ..data.uploads import Uploads
from ..errors import UserError
from ..files import read_json
from .kinds import CONTROL, kind_of
from .label_rows import refuse
from .labels import Labels, Task, class_faults, clean, find_names

TASK_KEYS = {"annotations", "completions", "predictions", "annotation_id", "annotator", "lead_time", "choice"}


def label_studio_tasks(task: Task) -> list[dict]:
    """Tasks for Label Studio's import; its local storage root must be this folder
    (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT).
    """
    return [
        {"data": {"image": f"/data/local-files/?d=images/{file}", "image_id": id}} for file, id in task.files.items()
    ]


def label_studio_config(task: Task) -> str:
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
    columns = list(dict.fromkeys(key for row in rows for key in row))
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
    task: Task,
    *,
    classes: list[str] | None = None,
    new_classes: bool = False,
    allow_missing: bool = False,
    skip_missing: bool = False,
    several: bool = False,
    skip_conflicts: bool = False,
) -> Labels:
    """The labels of a Label Studio export: JSON (tasks with annotations) or JSON-MIN (one flat object per task).

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
    out, faults, seen, torn, flags = Labels(), list[str](), dict[str, int](), set[str](), set[str]()
    rows = [
        (number, {"file_name": picture_of(item) or data.get("image"), "id": clean(data.get("image_id"))})
        for number, item in enumerate(tasks, start=1)
        for data in [item.get("data", item)]
    ]
    find_names(rows, by_file, ids, out.notes)
    for (number, row), item in zip(rows, tasks):
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
        found = answers(item, several)
        first, before = seen.setdefault(id, number), out.labels.get(id, "")
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


def answers(item: dict, several: bool) -> list[str]:
    """The labels that a task was given, each once: of several classes one for each annotation."""
    named = [sorted({clean(name) for name in names}) for names in choices(item)]
    return list(dict.fromkeys(joined(names) for names in named if names)) if several else sorted(set().union(*named))


def choices(item: dict) -> list[Iterable[str]]:
    """The class names of each annotation of a task that was not cancelled."""
    if "data" not in item:  # JSON-MIN
        name = item.get(CONTROL) or item.get("choice") or item.get("label")
        return [[name] if isinstance(name, str) else name.get("choices", []) if isinstance(name, dict) else name or []]
    annotations = [a for a in item.get("annotations", item.get("completions", [])) if not a.get("was_cancelled")]
    chosen = [[r for r in a.get("result", []) if r.get("type") == "choices"] for a in annotations]
    return [[name for r in results for name in r["value"]["choices"]] for results in chosen]

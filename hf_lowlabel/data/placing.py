"""Which images the pictures are that a file of annotations names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .annotated import Annotations
from .table_files import ImageNames, plain_name
from .uploads import Uploads


def place_images(
    part: Annotations, path: Path, every: ImageNames, uploads: Uploads
) -> Iterator[tuple[str, str | None]]:
    """Each picture that a file names, with its id below `path`; None where it is not there."""
    names = list(part.images)
    for name, id in zip(names, places(part.file, path, names, every, part.otherwise)):
        if id is None or PurePosixPath(id).name != PurePosixPath(plain_name(name)).name:
            candidates = uploads.candidates(plain_name(name))
            id = (candidates[0] if len(candidates) == 1 else None) if candidates else id
        yield name, id


def places(file: Path, path: Path, names: list[str], every: ImageNames, otherwise: str = "") -> list[str | None]:
    """The id below `path` of each picture that a file names: beside it, in images/ beside it, else wherever it is, else
    the one that is called `otherwise`. A picture without a folder is looked for elsewhere only where no images lie
    beside the file."""
    known, out = every.known, list[str | None]()
    here = file.parent.relative_to(path).as_posix()
    here = "" if here == "." else f"{here}/"
    among_images = here[:-1] in every.folders
    plain = [plain_name(name) for name in names]
    elsewhere, _ = every.match(plain)
    for name, other in zip(plain, elsewhere):
        base = PurePosixPath(name).name
        near = [f"{here}{name}", f"{here}images/{name}", name, f"{here}{base}", f"{here}images/{base}"]
        near += [f"images/{base}"] if "/" in name else []  # of another root
        other = None if here and among_images and "/" not in name else other
        out.append(next((id for id in near if id in known), other))
    for k, id in enumerate(out):
        base = plain[k].rpartition("/")[2]
        if id is None and len(base) > 9 and base[8] == "-":  # an upload of Label Studio
            out[k] = every.match([base[9:]])[0][0]
        if out[k] is None and otherwise:
            found = (every.match([name])[0][0] for name in elsewhere_called(here, otherwise, among_images))
            out[k] = next(filter(None, found), None)
    return out


def elsewhere_called(here: str, name: str, among_images: bool) -> Iterator[str]:
    """What a picture may be called whose file of annotations lies in the folder `here`: there, else with "images" in
    the place of one of these folders, or without it."""
    yield f"{here}{name}"
    folders = here.split("/")[:-1]
    for k in reversed(range(0 if among_images else len(folders))):
        yield "/".join([*folders[:k], "images", *folders[k + 1 :], name])
        yield "/".join([*folders[:k], *folders[k + 1 :], name])

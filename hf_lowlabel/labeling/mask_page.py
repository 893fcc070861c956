"""The page for masks: any folder of images in a browser on this machine, with brush, polygon, fill and superpixels.

Every stroke is saved at once: a palette PNG of class numbers beside the images, as `finetune` reads it. Pixels that
nobody has painted are 255 and ignored in training, so that a mask may be left half done. Killed at any time, the
page resumes from what is on the disk.
"""

from __future__ import annotations

import contextlib
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ..commands import auto_command, command
from ..data.pages import range_of
from ..data.pixels.mask_colors import Colors, further_color, lines_of
from ..data.pixels.masks import IGNORE, IGNORED_NAMES, MAX_CLASSES, list_classes
from ..errors import UserError, at_least
from ..evaluation.overlays import palette
from ..files import write_text
from ..text import series
from .binary_masks import OF_ONE, all_without_numbers, half_painted, refuse_unlike
from .class_names import alike, typed
from .display import answer_of, packed
from .labels import Asked
from .mask_assist import Assistant
from .mask_classes import check_name, check_two, given_classes, shared_with_data
from .mask_places import Place, find_places, image_size, read_mask, read_rgb, stamp_of, write_mask
from .mask_starts import Segmenter, superpixels
from .mask_watch import Watch
from .next_steps import after_masks
from .server import Answer
from .suggestions import read_suggestions


class Shown(NamedTuple):
    """why: an image is shown. box: where to look, (left, top, width, height) as shares of the image; none: anywhere."""

    why: str
    box: tuple[float, ...] = ()


SEEN = (125, 105, 180)  # in the place of black, of a background, on the page alone
HELD = 4  # images of which superpixels and a model's masks are remembered


class MaskSession:
    """The masks of one folder while they are painted; safe to call from several threads."""

    page = "mask_page.html"
    files = MappingProxyType({f"/{name}": name for name in ("mask_page.js", "mask_canvas.js", "mask_assist.js")})
    largest = 1 << 26  # bytes of a packed mask
    then: str | None = None  # what comes next, where that is not to take the masks over

    def __init__(
        self,
        folder: str | Path,
        asked: Asked | None = None,
        classes: Sequence[str] = (),
        model: str | None = None,
        pieces: int = 400,
        only: Mapping[str, Shown] | None = None,
        split: str = "train",
        assist: str | None = None,
        value_range: Sequence[float] = (),
        mask_format: str | None = None,
    ):
        at_least("superpixels", pieces, 2)
        self.folder, self.asked, self.pieces, self.lock = Path(folder), asked, pieces, threading.RLock()
        self.split, self.mask_format, self.watch = split, mask_format, Watch(self.folder)
        places = self.found_places()
        order = only if only is not None else asked.files if asked is not None else places
        self.places = {file: places[file] for file in order if file in places}  # in the order they were chosen in
        self.only, self.binary = only or {}, any(place.binary for place in self.places.values())
        self.model = Segmenter(model) if model else None
        self.given = {"mask_format": mask_format, "model": model, "assist": assist, "value_range": list(value_range)}
        self.value_range = range_of(value_range) or (self.model.value_range if self.model else None)
        self.assistant = Assistant(assist) if assist else None
        self.classes, self.colors = self.known_classes(classes)
        check_two(self.classes, self.folder, self.binary)
        if asked is None:
            refuse_unlike(self.folder, self.places.values(), bool(self.colors))
        self.said = read_suggestions(self.folder)
        self.remembered: dict[tuple[str, str], Answer] = {}
        self.written: dict[str, tuple[str, str]] = {}  # image -> the tab that wrote its mask last, and its stamp then

    def begin(self) -> None:
        """Write classes.txt where --classes says more, or none is there and masks may come from another tool."""
        with self.lock:
            there = self.classes_there()
            if there is not None and there[0] != self.classes[: len(there[0])]:  # another page was here meanwhile
                self.take_over_classes()
            elif there is not None and there != (self.classes, self.colors):
                self.write_classes()
            elif not self.only:
                self.note_classes()
            if self.asked is None and self.binary:
                all_without_numbers(self.places.values(), self.classes, self.colors)

    def known_classes(self, given: Sequence[str]) -> tuple[list[str], Colors]:
        """Names, and those colours that a file of classes gives. Of several sources the first one that says any."""
        there = self.classes_there()
        if given:
            found = given_classes(given, there, self.folder, of_run=bool(self.only))
            shared = shared_with_data(self.folder, self.asked, found) if self.asked else None
            return (shared.names, shared.colors) if shared else found
        if there and there[0]:
            return there
        names = (self.asked.class_names if self.asked else []) or (self.model.names if self.model else [])
        names = names or (OF_ONE if self.binary and not self.asked else [])
        return [check_name(name, "Name the classes by --classes.") for name in names], there[1] if there else {}

    def classes_there(self) -> tuple[list[str], Colors] | None:
        """What classes.txt of the folder says; None where there is none."""
        file = self.folder / "classes.txt"
        return list_classes(file) if file.is_file() else None

    def take_over_classes(self) -> None:
        """Classes that were written into classes.txt since it was read here. Raises UserError where the numbers of the
        others are not what they were."""
        known = self.classes
        names, colors = self.classes_there() or (known, self.colors)
        if names[: len(known)] != known:
            raise UserError(
                f"classes.txt was changed elsewhere: it says {series(names[:8])}, and this page has the numbers of "
                f"{series(known[:8])}. Nothing was saved. Put these back in this order, new ones after them, or end "
                "the page and start it again."
            )
        check_two(names, self.folder, self.binary)
        if names != known:
            self.remembered = {key: made for key, made in self.remembered.items() if key[0] != "model"}
        self.classes, self.colors = list(names), colors

    def found_places(self) -> dict[str, Place]:
        return find_places(self.folder, self.split, self.asked is not None, self.mask_format)

    def look_again(self) -> None:
        """For masks that were put there meanwhile under another name than the page gives them, such as 1_mask.png."""
        with self.lock:
            if not self.watch.changed():
                return
            watch, now = Watch(self.folder), self.found_places()
            self.places = {file: now.get(file, place) for file, place in self.places.items()}
            self.watch = watch

    def place(self, file: str) -> Place:
        if file not in self.places:
            raise UserError(f"There is no image {file!r} in this folder.")
        with self.lock:
            if not self.places[file].mask.is_file():
                self.look_again()
            return self.places[file]

    # ---- what the server asks for ------------------------------------------------------------------------------------
    def actions(self) -> Mapping[str, Callable[..., dict]]:
        return {"/class": self.new_class, "/rename": self.rename}

    def uploads(self) -> Mapping[str, Callable[[dict[str, str], bytes], dict]]:
        return {"/mask": self.save}

    def state(self) -> dict:
        self.look_again()
        with self.lock:
            self.take_over_classes()
        ids = self.asked.files if self.asked else {}
        shown = {file: Shown(self.said[id]["why"]) for file, id in ids.items() if id in self.said} | dict(self.only)
        images = [
            {"file": file, "id": ids.get(file, file), "mask": place.mask.is_file()}
            | shown.get(file, Shown(""))._asdict()
            for file, place in self.places.items()
        ]
        return {
            "images": images,
            "classes": self.painted_classes(),
            "folder": self.folder.resolve().name,
            "model": bool(self.model),
            "assist": bool(self.assistant),
            "review": bool(self.only),
            "whole": self.binary,
            "next": self.next_command(),
        }

    def painted_classes(self) -> list[dict]:
        colors = palette(self.classes or ["-"])[: len(self.classes)].tolist()
        shown = [color if any(color) else SEEN for color in colors]  # black is not seen on a dark image
        return [
            {"name": name, "color": list(self.colors.get(name, [color])[0])}
            for name, color in zip(self.classes, shown, strict=True)
        ]

    def get(self, path: str, query: dict[str, str]) -> Answer | None:
        if path.startswith("/images/"):
            file = path.removeprefix("/images/")
            return answer_of(self.places[file].image, self.value_range) if file in self.places else None
        if path == "/mask":
            return self.load(query.get("file", ""))
        if path == "/model" and self.model is not None:
            segmenter, names = self.model, list(self.classes)
            return self.once("model", query, lambda image: segmenter.mask(image, names))
        if path == "/assist" and self.assistant is not None:
            return self.assisted(query)
        if path == "/superpixels":
            return self.once("superpixels", query, lambda image: superpixels(image, self.pieces))
        return None

    def load(self, file: str) -> Answer:
        """The mask as bytes, a pixel each, row by row; 255 everywhere where there is none."""
        place = self.place(file)
        with self.lock:
            self.take_over_classes()
            stamp, mask = stamp_of(place), read_mask(place, self.classes, self.colors)
        width, height = image_size(place.image)
        if mask is None:
            mask = np.full((height, width), IGNORE, np.uint8)
        return packed(mask)._replace(stamp=stamp, sides=f"{width} x {height}")

    def once(self, what: str, query: dict[str, str], make: Callable[[np.ndarray], np.ndarray]) -> Answer:
        """What is computed of an image; that of the last images is remembered."""
        key = (what, query.get("file", ""))
        made = self.remembered.get(key)
        if made is None:
            made = packed(make(read_rgb(self.place(key[1]).image, self.value_range)))
            with self.lock:
                for old in list(self.remembered)[: max(0, len(self.remembered) + 1 - HELD)]:
                    del self.remembered[old]
                self.remembered[key] = made
        return made

    def assisted(self, query: dict[str, str]) -> Answer:
        """1 for the pixels that clicks `points`, x,y,1 or x,y,0 each, and a `box` mean, 0 for the others."""
        try:
            points = [[float(v) for v in point.split(",")] for point in query.get("points", "").split(";") if point]
            box = [float(v) for v in query.get("box", "").split(",") if v] or None
            fits = all(len(point) == 3 for point in points) and (box is None or len(box) == 4)
        except ValueError:
            fits = False
        if not fits:
            raise UserError("Clicks are x,y,1 or x,y,0 each, and a box is left,top,right,bottom.")
        file = query.get("file", "")
        image = read_rgb(self.place(file).image, self.value_range)
        return packed(self.assistant.mask(file, image, points, box).astype(np.uint8))

    def save(self, query: dict[str, str], content: bytes) -> dict:
        """Write the mask of an image: `content` is what `load` gives, packed by zlib, and the query has its stamp: each
        of several pages changes the mask that it shows, or that it wrote itself where the answer was lost."""
        file = query.get("file", "")
        place = self.place(file)
        width, height = image_size(place.image)
        try:
            unpacking = zlib.decompressobj()
            raw = unpacking.decompress(content, width * height + 1)
        except zlib.error as error:
            raise UserError(f"The mask of {file!r} did not arrive whole ({error}).") from error
        if len(raw) != width * height or not unpacking.eof:
            raise UserError(f"The mask of {file!r} has {len(raw)} pixels or more, the image {width} x {height}.")
        mask = np.frombuffer(raw, np.uint8).reshape(height, width)
        with self.lock:
            self.take_over_classes()
            if (mask[mask != IGNORE] >= len(self.classes)).any():
                raise UserError(f"The mask of {file!r} has a class that is not in the list.")
            now, tab = stamp_of(place), query.get("tab", "")
            if query.get("stamp", "") != now and not (tab and self.written.get(file) == (tab, now)):
                raise UserError(
                    f"{place.mask.name} was changed by somebody else, or in another tab. Go to another image and back "
                    "to see it; what you painted here last is not saved."
                )
            before = place.mask
            write_mask(place, mask, self.classes, self.colors)
            stamp = stamp_of(place)
            self.written[file] = (tab, stamp)
            for name in (before, place.mask):
                self.watch.ours(name)
            if stamp:
                self.note_classes()
        done = {"mask": bool(stamp), "open": round(float((mask == IGNORE).mean()), 4)}
        note = f"{before.name} is {place.mask.name} now, since {before.suffix} does not keep the numbers of classes"
        return {"file": file, "stamp": stamp, **done} | ({"note": note} if place.mask != before else {})

    def new_class(self, name: str) -> dict:
        with self.lock:
            self.take_over_classes()
            name = self.fit(name)
            if len(self.classes) >= (most := 2 if self.binary else MAX_CLASSES):
                raise UserError(f"There are {most} classes, which is all that such a mask has numbers for.")
            self.write_classes([*self.classes, name], self.colors | further_color(name, self.classes, self.colors))
            return self.state()

    def rename(self, old: str, new: str) -> dict:
        """Another name for the same number: no mask changes."""
        with self.lock:
            self.take_over_classes()
            if old not in self.classes:
                raise UserError(f"There is no class {old!r}.")
            name = self.fit(new, besides=old)
            called = {other: name if other == old else other for other in [*self.classes, *self.colors]}
            colors = {called[other]: of for other, of in self.colors.items()}
            self.write_classes([called[other] for other in self.classes], colors)
            return self.state()

    def fit(self, name: str, besides: str = "") -> str:
        name = check_name(typed(name))
        if self.colors and name in IGNORED_NAMES:
            raise UserError(
                f"With a colour {name!r} is no class in classes.txt: its pixels are left out. Give another."
            )
        same = next((c for c in self.classes if alike(c) == alike(name) and c != besides), None)
        if same is not None:
            raise UserError(f"The class {same!r} exists.")
        return name

    def note_classes(self) -> None:
        """Write classes.txt where it is missing: masks without the names of their numbers are worth little."""
        if self.classes and not (self.folder / "classes.txt").is_file():
            self.write_classes()

    def write_classes(self, names: list[str] | None = None, colors: Colors | None = None) -> None:
        names, colors = self.classes if names is None else names, self.colors if colors is None else colors
        write_text(self.folder / "classes.txt", lines_of(names, colors))
        self.watch.ours(self.folder / "classes.txt")
        self.classes, self.colors = names, colors
        self.remembered = {key: made for key, made in self.remembered.items() if key[0] != "model"}

    def next_command(self) -> str:
        if self.then is not None:
            return self.then
        if self.asked is not None:
            return after_masks(self.folder, self.asked, self.painted() < len(self.asked.files))
        said = {"dataset": self.folder, "mask_format": self.mask_format, "value_range": [*(self.value_range or [])]}
        return auto_command(said, "segmentation", classes=[self.folder / "classes.txt"])

    def painted(self) -> int:
        return sum(place.mask.is_file() for place in self.places.values())

    def parting(self) -> str:
        with contextlib.suppress(UserError, OSError):  # the page has said it; what it knows is counted
            self.look_again()
        done = self.painted()
        again = command("label", self.folder, task=None if self.asked else "segmentation", **self.given)
        then = self.next_command() if done or self.then is not None else again
        return f"{done} of {len(self.places)} images have a mask{half_painted(self.places.values())}; next: {then}"

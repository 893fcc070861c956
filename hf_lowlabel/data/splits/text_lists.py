"""Files that are called as splits, each a list of its images: val.txt, splits/test.txt, ImageSets/Main/test.txt; lists
of all splits in split.json and of CUB; and what may be a list, and is told since it is not read."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import UserError
from ...files import read_text
from ...text import series, warn
from ..files.folders import ALIASES, OTHER_TABLES, subfolders
from ..files.split_words import is_called, splits_in
from ..files.table_files import TABLES, NoTable, plain_name
from ..labels.columns import columns_of
from .pool import Listed, Pool, files_ending, warn_list_unread
from .split_names import OF_ALL, split_named
from .split_tables import OF_TOOLS, is_json, named_as_image, pictures_in

OF_LISTS = ("splits", "split", "lists", "imagesets", "meta", *OF_TOOLS)  # folders of lists
FIRST = 50  # lines of a file that are looked at, which is no list by its name
BOX = re.compile(r"\d+(\s+[-+.\deE]+){4,}\s*")  # a line of YOLO's, and of no list


def in_lists(path: Path, pool: Pool) -> Iterator[Listed]:
    """What text files list that are called as splits, a line for an image, which more words may follow."""
    for folder in (path, *(one for one in subfolders(path) if one.name.lower() in OF_LISTS)):
        found = lists_in(folder, pool) or (lists_below(folder, pool) if folder != path else [])
        yield from without_folds(found)
        tell_tables(path, folder, pool)


def lists_in(folder: Path, pool: Pool, every: bool = True) -> list[Listed]:
    """The lists in a folder. every: those too that may be of a split by their lines, which are told."""
    return [part for file in files_ending(folder, (".txt",)) if (part := list_of_split(file, pool, every)) is not None]


def lists_below(folder: Path, pool: Pool) -> list[Listed]:
    """The lists in the only folder of a folder of lists that has some, or in VOC's ImageSets/Main/."""
    below = {one.name.lower(): lists for one in subfolders(folder) if (lists := lists_in(one, pool, every=False))}
    if "main" not in below and len(below) > 1 and any(part.split != "train" for one in below.values() for part in one):
        warn(
            f"The lists in {series(f'{folder.name}/{name}/' for name in below)} are not read: they may be several "
            f"divisions, and nothing is held out by them. Move those that are meant into {folder.name}/."
        )
    return below.get("main") or (next(iter(below.values())) if len(below) == 1 else [])


def tell_tables(path: Path, folder: Path, pool: Pool) -> None:
    """A warning of each table in a folder that may list held-out images and is not read."""
    for file in files_ending(folder, (*TABLES, *OTHER_TABLES)):
        held = splits_in(file.stem) - {"train"}
        if not held or file.stem in pool.stems or not file.is_file() or folder == path and pool.all_in_splits:
            continue
        if is_json(file) and pictures_in(file) is not None:
            continue
        split, called = min(held), len(held) == 1 and is_called(file.stem, *held)
        if file.suffix.lower() in OTHER_TABLES:
            if called:
                warn_list_unread(file, split, "save it as .xlsx or 'CSV UTF-8'")
        elif folder != path:
            if called:
                warn_list_unread(file, split, f"tables are read in {path.name}/ itself")
        elif not called and table_names_images(file, pool):
            warn_list_unread(file, split, f"its name says more; call it {split}{file.suffix} if that is meant")


def table_names_images(file: Path, pool: Pool) -> bool:
    """Whether each cell of a column of a table, which may be of something else, names an image."""
    try:
        rows = [row for _, row in pool.read(file)[:FIRST]]
    except (NoTable, UserError):
        return False
    cells = [[name for row in rows if (name := plain_name(row.get(column)))] for column in columns_of(rows)]
    texts = [names for names in cells if any(not name.replace(".", "").isdigit() for name in names)]
    return any(None not in pool.every.match(names)[0] for names in texts)


def in_numbers(path: Path, pool: Pool) -> Iterator[Listed]:
    """What CUB's images.txt and train_test_split.txt say: the name of each number, and 1 where it is of training."""
    names_file, file = path / "images.txt", path / "train_test_split.txt"
    if not (names_file.is_file() and file.is_file()):
        return
    names, flags = (
        [line.split(None, 1) for line in read_text(one).splitlines() if line.strip()] for one in (names_file, file)
    )
    called = {number: plain_name(name) for number, *rest in names for name in rest}
    said = [(number, "".join(rest).strip()) for number, *rest in flags]
    if odd := next((number for number, flag in said if flag not in ("0", "1") or number not in called), None):
        warn_list_unread(file, "test", f"{odd!r} has no 0 or 1 in it, or no image in images.txt")
        return
    for split, flag in (("train", "1"), ("test", "0")):
        some = [called[number] for number, given in said if given == flag]
        yield Listed(split, file, list(zip(some, pool.match(some, split))), key=split)


def in_json(path: Path, pool: Pool) -> Iterator[Listed]:
    """What split.json or splits.json says: the names of the images of each split, or the split of each image."""
    for file in files_ending(path, (".json",)):
        if file.stem.lower() not in OF_ALL or not file.is_file():
            continue
        try:
            said = json.loads(read_text(file))
        except (UserError, ValueError, RecursionError):  # which is said where tables are looked for
            continue
        if not isinstance(said, dict) or not said:
            continue
        if {"fingerprint", "labeled"} <= said.keys():  # a manifest of ours
            continue
        if each := all(isinstance(split, str) and split.strip().lower() in ALIASES for split in said.values()):
            of_split: dict[str, list[str]] = {}
            for name, split in said.items():
                of_split.setdefault(split, []).append(name)
            said = of_split
        keys = [key for key in said if key.strip().lower() in ALIASES]
        for key, some in ((key, said[key]) for key in keys):  # others are such as a seed
            split, names = split_named(key), some if isinstance(some, list) else []
            if not isinstance(some, list) or not all(isinstance(name, (str, int)) for name in names):
                if split != "train":
                    warn_list_unread(file, split, f"{key!r} in it is no list of names of images")
                continue
            plain = list(filter(None, map(plain_name, names)))
            found = list(zip(plain, pool.match(plain, split)))
            if any(id for _, id in found) or any(map(named_as_image, plain)):
                yield Listed(split, file, found, key="" if each else key)
            elif plain and split != "train":
                warn_list_unread(file, split, f"no image is called {plain[0]!r}")


def list_of_split(file: Path, pool: Pool, every: bool) -> Listed | None:
    """What a text file lists; None where it is no list of a split. One that might be of images which are held out is
    told. every: also where its name says more than its split."""
    said = splits_in(file.stem)
    if not said or said == {"train"} and not is_called(file.stem, "train"):
        return None
    if file.stem in pool.stems or not file.is_file():
        return None
    split = min(said - {"train"}, default="train")
    if len(said) > 1 or not is_called(file.stem, split):
        if every and "train" not in said and names_images(file, split, pool):
            warn_list_unread(file, split, f"its name says more; call it {split}.txt if that is meant")
        return None
    found = lines_of(file, split, pool)
    if any(id for _, id in found) or any(named_as_image(name) for name, _ in found):
        return Listed(split, file, found)
    if found and split != "train" and not pool.all_in_splits and all(" " not in name for name, _ in found):
        warn_list_unread(file, split, f"no image and no folder of images is called {found[0][0]!r}")
    return None


def names_images(file: Path, split: str, pool: Pool) -> bool:
    """Whether the first lines of a text file, which may be notes or a long log, all mean an image."""
    try:
        with open(file, encoding="utf-8-sig") as lines:
            few = [plain_name(line) for line in itertools.islice(lines, FIRST) if line.strip()]
    except (OSError, UnicodeDecodeError):  # no list
        return False
    pairs = [(line, plain_name(re.split(r"[\s,;]", line)[0])) for line in few]
    return not of_boxes(few, pool) and all(
        match_lines([line], [word], split, pool)[0] is not None for line, word in pairs
    )


def of_boxes(lines: Sequence[str], pool: Pool) -> bool:
    """Whether lines are YOLO's, and no names of images with flags after them, as in "000002 1 0 0 1"."""
    flagged = (not line.count(".") and line.split()[0] in pool.every.by_base for line in lines)
    return all(map(BOX.fullmatch, lines)) and not any(flagged)


def lines_of(file: Path, split: str, pool: Pool) -> list[tuple[str, str | None]]:
    """(name, id) of each line, and of each image in a folder that a line names; none of a file of boxes."""
    lines = [plain_name(line) for line in read_text(file).splitlines() if line.strip()]
    if of_boxes(lines, pool):
        return []
    first = [plain_name(re.split(r"[\s,;]", line)[0]) for line in lines]
    out: list[tuple[str, str | None]] = []
    for line, word, id in zip(lines, first, match_lines(lines, first, split, pool)):
        below = [] if id is not None else pool.below(line) or pool.below(word)
        out += [(word, one) for one in below] or [(word if id is not None or named_as_image(word) else line, id)]
    return out


def without_folds(found: Sequence[Listed]) -> list[Listed]:
    """The lists of a folder without those of several divisions (train1.txt, test1.txt, train2.txt ...), which put an
    image into different splits."""
    words = [re.sub(r"\d+", "", part.file.stem.lower()) for part in found]
    numbered = [part for part, word in zip(found, words) if words.count(word) > 1]
    of: dict[str, str] = {}
    contradict = any(of.setdefault(id, part.split) != part.split for part in numbered for _, id in part.found if id)
    if not contradict:
        return list(found)
    warn(
        f"{numbered[0].file.name} to {numbered[-1].file.name} in {numbered[0].file.parent.name}/ are not read: they "
        f"are {len(numbered)} lists of several divisions, and nothing is held out by them. Keep the lists of one."
    )
    return [part for part in found if part not in numbered]


def match_lines(lines: Sequence[str], first: Sequence[str], split: str, pool: Pool) -> list[str | None]:
    """The id that each line of a list means by its first word, or as a whole where an image is called so, with blanks.
    Both are looked for only where one is not found: there may be a line for each of many images."""

    def with_blanks(line: str, word: str) -> bool:
        return line in pool.every.known or not named_as_image(word) and line.rpartition("/")[2] in pool.every.by_base

    whole = [with_blanks(line, word) for line, word in zip(lines, first)]
    found = pool.match([line if one else word for line, word, one in zip(lines, first, whole)], split)
    lost = [k for k, id in enumerate(found) if id is None and lines[k] != first[k]]
    for k, id in zip(lost, pool.match([first[k] if whole[k] else lines[k] for k in lost], split) if lost else ()):
        found[k] = id
    return found

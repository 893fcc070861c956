"""Drawing which images are labeled and which are held out, as a function of the seed.

Images of one class each are drawn by class: test and validation stratified, the labeled ones at random or
class-balanced. Pages of one file (--pages) are held out together, or not at all. Images with masks or several classes
are drawn as CutMix-Seg does (French et al. 2019), so that its ISIC subsets are found again by its seed, 12345: the
first entries of numpy's RandomState(seed).permutation over the sorted ids.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...errors import UserError, at_least, is_number
from ...text import brief, files_of, warn
from ..dataset import ImageDataset
from ..permutation import epoch_permutation
from .splits import Split, manifest


def make_split(
    source: ImageDataset,
    num_labels: int | None = None,
    *,
    labeled: Iterable[str] | None = None,
    seed: int = 0,
    class_balanced: bool = False,
    validation: int = 0,
    test_fraction: float = 0.0,
) -> Split:
    """Choose which images are labeled, after setting test and validation aside.

    The test set depends on `seed` only. Pages of one file stay together: whole files are held out, with about as many
    images as asked for. For masks, several classes and `class_balanced` draws, a larger budget contains the smaller.

    Args:
        source: what `load_source` or `load_segmentation` returns.
        num_labels: labeled images; None: every label there is.
        labeled: instead, ids of images to label as the source does, such as `select(...).ids`. None of them is held
            out: the next ones of the same draw are, so that most of it stays with more of them.
        seed: of the draws.
        class_balanced: evenly from all classes; for images of one class each.
        validation: images for validation.
        test_fraction: share of the images with a target that becomes the test set.

    Returns:
        The Split.

    Raises:
        UserError: the labels there cannot meet the budget.
    """
    if not isinstance(source, ImageDataset):
        raise UserError(
            f"make_split takes an ImageDataset, not a {type(source).__name__}: make_split(load_source(...), ...)."
        )
    at_least("seed", seed, 0, 2**32 - 1)
    given = None if labeled is None else positions_of(source, labeled, num_labels, class_balanced)
    has_target = np.flatnonzero(source.has_target)
    one_class = of_one_class(source)
    check_counts(source, num_labels, validation, test_fraction, has_target)
    if one_class:
        check_classes(source, num_labels, class_balanced, has_target)
    elif class_balanced:
        raise UserError("class_balanced is for images of one class each. Leave it out.")
    order = has_target if one_class else np.array(sorted(has_target, key=lambda i: source.ids[i]), dtype=np.int64)
    found = files_of(source.ids, source.file_of)
    files = None if found is None else np.array(found)
    kept = None if given is None else with_pages(given, order, files)
    test = held_out(source, order, round(test_fraction * len(order)), seed, "split/test", files, kept)
    held = held_out(source, order[~np.isin(order, test)], validation, seed, "split/validation", files, kept)
    rest = order[~np.isin(order, [*test, *held])]
    wanted = label_budget(source, order, rest, test, held, num_labels, class_balanced)
    if given is not None:
        chosen = given
    elif class_balanced and num_labels is not None:
        chosen = balanced(source, rest, wanted, seed)
    elif one_class:
        chosen = rest[epoch_permutation(seed, "split/labeled", 0, wanted, len(rest))]
    else:
        chosen = rest[np.random.RandomState(seed).permutation(len(rest))[:wanted]]
    labeled = {source.ids[i]: source.class_names[source.labels[i]] if one_class else None for i in np.sort(chosen)}
    held_ids, test_ids = ([source.ids[i] for i in np.sort(part)] for part in (held, test))
    drawn = num_labels is not None or given is not None
    return manifest(source, labeled, validation=held_ids, test=test_ids, seed=seed, drawn=drawn)


def positions_of(source: ImageDataset, ids: Iterable[str], num_labels: int | None, class_balanced: bool) -> np.ndarray:
    """Where the images that are to be labeled are, int64. Raises UserError where they are none, or have no label."""
    if num_labels is not None or class_balanced:
        raise UserError("labeled says which images are labeled, and num_labels draws them. Leave one of them out.")
    names = [*ids] if isinstance(ids, Iterable) and not isinstance(ids, (str, bytes)) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"labeled is {brief(ids)}. Give a list of ids, such as [{source.ids[0]!r}].")
    at = {id: i for i, id in enumerate(source.ids)}
    for name in names:
        if name not in at:
            raise UserError(f"There is no image {name!r} in {source.name!r}; ids there are such as {source.ids[0]!r}.")
        if not source.has_target[at[name]]:
            what = "mask" if source.masks else "label"
            raise UserError(
                f"The image {name!r} of {source.name!r} has no {what}. Open the data with its {what}s, or leave it out."
            )
    return np.unique([at[name] for name in names])


def with_pages(given: np.ndarray, among: np.ndarray, files: np.ndarray | None) -> np.ndarray:
    """Images that are to be labeled, and pages of a file of which one is."""
    return given if files is None else among[np.isin(files[among], files[given])]


def of_one_class(source: ImageDataset) -> bool:
    return source.masks is None and source.labels.ndim == 1


def held_out(
    source: ImageDataset,
    among: np.ndarray,
    count: int,
    seed: int,
    stream: str,
    files: np.ndarray | None,
    kept: np.ndarray | None,
) -> np.ndarray:
    """About `count` images to hold out. files: the number of the file that each image of `source` is a page of, where
    some are. kept: images that are not held out, since they are those to label; None: nothing is said of that, and a
    class does not lose its last label."""
    draw = stratified if of_one_class(source) else uniform
    check_left(among, count, stream)
    if files is None or not count:
        out = draw(source, among, count, seed, stream, kept)
        if len(out) < count:
            why = "The last label of a class is kept to learn from" if kept is None else "The other images are labeled"
            warn(
                f"{why}: {len(out)} images are held out for {stream.removeprefix('split/')}, where {count} were asked "
                "for."
            )
        return out
    firsts = among[np.sort(np.unique(files[among], return_index=True)[1])]  # a page of each file
    wanted = max(1, round(count * len(firsts) / len(among)))
    if wanted >= len(firsts):
        raise UserError(
            f"The {len(among)} images to hold out {count} of for {stream.removeprefix('split/')} are the pages of "
            f"{'one file' if len(firsts) == 1 else f'{len(firsts)} files'}, and those of a file are alike: they "
            "are held out together, and none would be left to learn from. Add files, or hold out fewer."
        )
    some = draw(source, firsts, wanted, seed, stream, kept)
    if source.masks is None and kept is None:  # the first page does not say what the others show
        some = not_the_last(source, among, some, files)
    out = among[np.isin(files[among], files[some])]
    if len(out) != count:
        why = "the last label of a class is kept to learn from" if kept is None else "the other files are labeled"
        why = f", and {why}" if len(some) < wanted else ""
        warn(
            f"Pages of one file are held out together{why}: {len(out)} images for {stream.removeprefix('split/')}, "
            f"all of {len(some)} of {len(firsts)} files, where {count} were asked for."
        )
    return out


def not_the_last(source: ImageDataset, among: np.ndarray, drawn: np.ndarray, files: np.ndarray) -> np.ndarray:
    """The pages `drawn` without those of whose file another page has the last label of a class."""
    labels = source.labels[among]
    shows = labels > 0 if labels.ndim > 1 else labels[:, None] == np.arange(len(source.class_names))
    left, kept = shows.sum(0), []
    for page in drawn:
        own = shows[files[among] == files[page]].sum(0)
        if not ((own > 0) & (own == left)).any():
            left = left - own
            kept.append(page)
    return np.array(kept, np.int64)


def label_budget(
    source: ImageDataset,
    order: np.ndarray,
    rest: np.ndarray,
    test: np.ndarray,
    held: np.ndarray,
    num_labels: int | None,
    class_balanced: bool,
) -> int:
    """How many of the images that are left, `rest`, are labeled: all where no number is asked for, and with a warning
    where there are fewer. Raises UserError where that is not possible."""
    wanted = len(rest) if num_labels is None else num_labels
    if len(rest) < wanted <= len(order) and len(rest) and not class_balanced:
        warn(
            f"Of {len(order)} images with a {'mask' if source.masks else 'label'} in {source.name!r}, {len(test)} are "
            f"held out for test and {len(held)} for validation: the other {len(rest)} are labeled, not {wanted}."
        )
        wanted = len(rest)
    if wanted > len(rest) or not wanted:
        raise UserError(
            f"{len(rest)} images with a {'mask' if source.masks else 'label'} are left to choose from in "
            f"{source.name!r} ({len(order)} less {len(test)} for test and {len(held)} for validation), and the label "
            f"budget is {max(wanted, 1)}. Ask for fewer labels, or for a smaller test or validation set."
        )
    return wanted


def check_counts(source: ImageDataset, num_labels, validation, test_fraction, has_target: np.ndarray) -> None:
    if not is_number(test_fraction) or not 0 <= test_fraction < 1:
        raise UserError(f"A test fraction of {brief(test_fraction)} is not in 0 <= fraction < 1.")
    at_least("validation", validation, 0)
    at_least("num_labels", num_labels, 1)
    if not len(has_target):
        what = (
            "mask in {name!r} to make a split from. Add some to masks/, or give --split."
            if source.masks
            else "label in {name!r} to make a split from. Sort images into one folder per class, add metadata.csv with "
            "file_name and label, or give --split."
        )
        raise UserError("There is no " + what.format(name=source.name))


def check_classes(source: ImageDataset, num_labels, class_balanced: bool, has_label: np.ndarray) -> None:
    named = [source.class_names[k] for k in np.unique(source.labels[has_label])]
    if len(named) < 2:
        raise UserError(
            f"All {len(has_label)} labels of {source.name!r} are of the one class {named[0]!r}, and at least 2 are "
            "needed to tell apart. Label images of another class, or give --dataset the folder that holds one folder "
            "per class."
        )
    classes = len(source.class_names)
    if class_balanced and num_labels is not None and num_labels < classes:
        raise UserError(
            f"{num_labels} labels cannot cover {classes} classes when class-balanced. Use --num-labels {classes} or "
            "more, or leave out --class-balanced."
        )


def uniform(
    source: ImageDataset, among: np.ndarray, count: int, seed: int, stream: str, kept: np.ndarray | None
) -> np.ndarray:
    """`count` images, whatever they show; fewer where one has the last label of one of several classes, or all others
    are `kept`."""
    if kept is not None and count:
        every = among[epoch_permutation(seed, stream, 0, len(among), len(among))]
        return every[~np.isin(every, kept)][:count]
    if source.masks is not None or not count:
        return among[epoch_permutation(seed, stream, 0, count, len(among))] if count else among[:0]
    shows = source.labels > 0
    left, drawn = shows[among].sum(0), list[int]()
    for i in among[epoch_permutation(seed, stream, 0, len(among), len(among))]:
        if len(drawn) < count and (left[shows[i]] > 1).all():
            left -= shows[i]
            drawn.append(int(i))
    return np.array(drawn, np.int64)


def check_left(among: np.ndarray, count: int, stream: str) -> None:
    if count > len(among):
        raise UserError(
            f"{len(among)} labeled images are left for {stream.removeprefix('split/')}, which asks for {count}. "
            "Set fewer aside."
        )


def shuffled_class(source: ImageDataset, among: np.ndarray, k: int, seed: int, stream: str) -> np.ndarray:
    """Those of class k in an order of their own, so that a longer prefix contains a shorter one."""
    members = among[source.labels[among] == k]
    return members[epoch_permutation(seed, f"{stream}/{k}", 0, len(members), len(members))] if len(members) else members


def stratified(
    source: ImageDataset, among: np.ndarray, count: int, seed: int, stream: str, kept: np.ndarray | None
) -> np.ndarray:
    """`count` images with each class in proportion, by largest remainder (ties to the lower class); fewer where a class
    would lose its last label, or all others are `kept`."""
    if count == 0:
        return among[:0]
    sizes = np.bincount(source.labels[among], minlength=len(source.class_names))
    share = count * sizes / len(among)
    quota = np.floor(share).astype(np.int64)
    quota[np.argsort(-(share - quota), kind="stable")[: count - quota.sum()]] += 1
    members = [shuffled_class(source, among, k, seed, stream) for k in range(len(sizes))]
    if kept is not None:
        members = [some[~np.isin(some, kept)] for some in members]
    most = np.maximum(sizes - 1, 0) if kept is None else np.array([len(some) for some in members])
    quota = np.minimum(quota, most)
    while quota.sum() < count and (quota < most).any():
        quota[np.where(quota < most, share - quota, -np.inf).argmax()] += 1
    return np.sort(np.concatenate([some[:q] for some, q in zip(members, quota, strict=True)]))


def balanced(source: ImageDataset, among: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` images, each class as often as any other; what does not divide goes to classes drawn at random."""
    classes = len(source.class_names)
    quota = np.full(classes, count // classes, dtype=np.int64)
    quota[epoch_permutation(seed, "split/extra", 0, classes, classes)[: count % classes]] += 1
    sizes = np.bincount(source.labels[among], minlength=classes)
    short = [k for k in range(classes) if sizes[k] < quota[k]]
    if short:
        found, least = ", ".join(f"{source.class_names[k]} has {sizes[k]}" for k in short[:10]), int(sizes.min())
        raise UserError(
            f"{len(short)} classes have too few labeled images ({found}): {count} class-balanced labels take "
            f"{int(quota.max())} of each. "
            + (f"Use --num-labels {least * classes} or fewer" if least else "Label some images of each class")
            + ", or leave out --class-balanced."
        )
    parts = [shuffled_class(source, among, k, seed, "split/balanced")[: quota[k]] for k in range(classes)]
    return np.concatenate(parts)

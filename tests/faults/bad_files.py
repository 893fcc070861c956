"""What may stand where a file of ours is expected: cut, empty, of another kind, of wrong types, no file at all."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

Change = Callable[[Path], None]
DEEP = "[" * 100_000
OTHERS = (None, 3, -1, 1e999, "x", "", True, [], {}, [None], [[]], {"a": None}, "../../etc", "\ud800")


def changes(path: Path, *, some: int | None = None, seed: int = 0) -> Iterator[tuple[str, Change]]:
    """(what it is, how to do it) for a file; `some` of those inside a JSON or YAML file, all of them where None."""
    whole = path.read_bytes()
    yield "is empty", lambda p: p.write_bytes(b"")
    for share in (0.1, 0.5, 0.99):
        yield f"is cut at {share:.0%}", lambda p, share=share: p.write_bytes(whole[: int(share * len(whole))])
    yield "is zeros", lambda p: p.write_bytes(bytes(len(whole)))
    yield "is noise", lambda p: p.write_bytes(random.Random(seed).randbytes(max(len(whole), 100)))
    yield "is text", lambda p: p.write_text("once upon a time\n")
    yield "is UTF-16", lambda p: p.write_bytes("once upon a time\n".encode("utf-16"))
    yield "is nested deeply", lambda p: p.write_text(DEEP)
    for value in (None, 3, "x", [], {}, [1, 2], {"a": 1}, [{}], float("nan")):
        yield f"is {json.dumps(value)}", lambda p, v=value: p.write_text(json.dumps(v))
    yield "is a folder", lambda p: (p.unlink(), p.mkdir())
    yield "is a FIFO", lambda p: (p.unlink(), os.mkfifo(p))
    yield "is a device", lambda p: (p.unlink(), p.symlink_to("/dev/zero"))
    yield "leads nowhere", lambda p: (p.unlink(), p.symlink_to("nowhere"))
    yield "leads to itself", lambda p: (p.unlink(), p.symlink_to(p.name))
    yield "is gone", lambda p: p.unlink()
    inside = list(values_of(path, whole))
    if some is not None:
        inside = random.Random(seed).sample(inside, min(some, len(inside)))
    yield from inside


def values_of(path: Path, whole: bytes) -> Iterator[tuple[str, Change]]:
    """Every value of a JSON or YAML mapping, one after the other, is another; and is gone."""
    if path.suffix not in (".json", ".yaml"):
        return
    import yaml

    content = yaml.safe_load(whole) if path.suffix == ".yaml" else json.loads(whole)
    for key, value in content.items():
        places = [(key,)]
        if isinstance(value, dict):
            places += [(key, inner) for inner in list(value)[:2]]
        elif isinstance(value, list) and value:
            places += [(key, 0)]
        for place in places:
            for other in OTHERS:
                yield f"has {other!r} at {'.'.join(map(str, place))}", lambda p, a=place, b=other: put(p, whole, a, b)
            yield f"lacks {'.'.join(map(str, place))}", lambda p, a=place: put(p, whole, a, None, remove=True)


def put(path: Path, whole: bytes, place: tuple, value: object, remove: bool = False) -> None:
    import yaml

    is_yaml = path.suffix == ".yaml"
    content = yaml.safe_load(whole) if is_yaml else json.loads(whole)
    inside = content
    for part in place[:-1]:
        inside = inside[part]
    if remove:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    path.write_text(yaml.safe_dump(content) if is_yaml else json.dumps(content))


def restore(path: Path, original: Path) -> None:
    """What was changed is as it was."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)
    shutil.copyfile(original, path)


def flips(path: Path, count: int, seed: int = 0) -> Iterator[tuple[int, bytes]]:
    """(place of the bit, the file with it turned) for `count` places spread over the file, its first bytes among
    them."""
    whole, rng = path.read_bytes(), random.Random(seed)
    places = [*range(min(len(whole), count // 4)), *(rng.randrange(len(whole)) for _ in range(count - count // 4))]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        yield place, bytes(changed)

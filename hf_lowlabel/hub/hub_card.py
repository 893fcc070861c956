"""README.md and run.json of a run as they are on the Hub, beside what was written into the card there."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from ..licences import card_in, license_in, license_link_in
from ..records import RunRecord
from .card import PICTURES, license_sentence, write_card
from .upload import PushError, Remote

log = logging.getLogger("hf_lowlabel")
BLOCK = re.compile(r"\A---[ \t]*\n(.*?\n)??---[ \t]*(?:\n|\Z)", re.S)  # the metadata at the top
LICENCE = re.compile(r"^license\w*[ \t]*:.*\n(?:(?:[ \t]+|- ).*\n)*", re.M)  # in it
# what `write_card` says of the licence; not what somebody wrote behind it
SENTENCE = re.compile(
    r"(?<=\n## Licence\n\n)(?:\*\*Not given yet\.\*\* .*? before sharing it\.|This model: (?:(?!\. ).)+?\.(?=\n|\Z| ))"
)
CODE = re.compile(r"^```.*?^```$", re.M | re.S)
BESIDE = (
    "hub_id",
    "license",
    "license_link",
    "license_here",
    "card_hash",
    "card_seen",
)  # of run.json, what a push sets
MESSAGE = "weights, configuration, card, split, metrics"  # in the title of every commit of a push


@dataclass
class HubCard:
    """text: README.md. record: of run.json, None without one. pristine: whether the text is as the run wrote it.
    before: the licence that run.json notes. seen: hash of the card on the Hub as the last push of this folder left it.
    """

    text: str
    record: RunRecord | None
    pristine: bool
    before: str | None = None
    seen: str | None = None


def hub_card(folder: Path, repo_id: str, revision: str | None = None, licence: str | None = None) -> HubCard:
    """The card of a folder for the Hub.

    A card that is still as the run wrote it, but for its licence, is written anew, with the Hub's name as its title;
    one that somebody has edited keeps every word, and only the names of the model in its section "Use" become the
    Hub's.

    Args:
        folder: a run folder, or a model with a card.
        repo_id: where it goes.
        revision: branch that it goes to; None for main, whose name the record then learns.
        licence: lines of metadata that take the place of those about the licence; None leaves them.

    Raises:
        UserError: the card is not UTF-8, or its metadata cannot be read.
    """
    card, path = card_in(folder / "README.md"), folder / "run.json"
    card = card if licence is None else with_licence(card, licence)
    if not path.is_file():
        return HubCard(stated(renamed(card, repo_id, revision)), None, False)
    record = RunRecord.from_json(path)
    before, seen = record.license, record.card_seen
    # pictures may have gone since it was written, and the folder may have had another name
    linked = [picture for picture in PICTURES if f"]({picture})" in card]
    names = dict.fromkeys([folder.resolve().name, *re.findall(r'from_pretrained\("(\w[\w .-]{0,99})"', card)])
    pristine = any(words_of(card) == words_of(_rendered(folder, card, record, name, linked)) for name in names)
    there = replace(record, hub_id=repo_id)
    text = _rendered(folder, card, there) if pristine else stated(renamed(card, repo_id, revision), before)
    text = renamed(text, repo_id, revision) if revision else text
    record.hub_id = record.hub_id if revision else repo_id
    (record.license, record.license_link), record.license_here = _licence(text), None
    record.card_hash = record.card_seen = _hash(text)
    return HubCard(text, record, pristine, before, seen)


def agreed(
    mine: HubCard,
    remote: Remote,
    folder: Path,
    run: Path,
    repo_id: str,
    revision: str | None,
    review: bool,
    learns: bool,
) -> HubCard:
    """The card of a folder with what was written into the one on the Hub since a push wrote it.

    The licence there counts where the folder states the one of its last push there, or none, which it does not
    withdraw; words stay where the folder has the same card as then. A folder without a run.json has no notes of that,
    so that a card that was edited there is not replaced.

    Args:
        mine: what `hub_card` makes of the folder.
        remote: the repository.
        folder: as of `hub_card`.
        run: that messages name.
        repo_id: as of `hub_card`.
        revision: as of `hub_card`.
        review: whether somebody looks at the difference before it counts: a pull request.
        learns: whether the card becomes that of the folder.

    Raises:
        PushError: words were written there, and the folder has others; or that card cannot be read.
    """
    if "README.md" not in remote.files:
        return mine
    theirs = _readable(remote.read("README.md"), repo_id)
    said = values_of(remote.read("run.json")) if "run.json" in remote.files else {}
    left = "" if said else _last_pushed(remote, repo_id)  # where no run.json tells of the last push
    own, there, noted = _licence(mine.text), _licence(theirs), said.get("card_hash")
    # a version before noted no link: whose name is as it was has the link that it had
    link = said.get("license_link", (there if there[0] == said.get("license") else own)[1])
    was = [said.get("license"), link] if said else _licence(left)
    last = said.get("license_here") or was  # as the folder stated it then
    same_run = mine.record is not None and _facts(said) == _facts(_values(mine))
    # a folder that states none has withdrawn it where it stated it, as its notes tell, or those there of the same run
    withdrawn = there == was == last and (mine.before == was[0] or same_run and not learns)
    taken = not withdrawn if own[0] is None else mine.record is not None and own == last
    if taken and own != there:
        log.info("the licence that the card of %s states there is taken over: %s", repo_id, there[0] or "none")
        mine = hub_card(folder, repo_id, revision, _licence_lines(theirs))
    same_licence = mine.record is not None or there == _licence(mine.text)
    if same_licence and words_of(theirs) == words_of(mine.text):
        return _noted(mine, noted or _hash(mine.text))
    if said:
        as_left = _hash(theirs) == noted if noted else _is_of_its_run(theirs, remote)
    else:
        as_left = words_of(theirs) == words_of(left)
    if as_left and (mine.record or there == was) or not BLOCK.sub("", theirs).strip():
        return mine
    same_card = mine.record is not None and mine.record.card_hash == noted
    if same_card or (mine.pristine and same_run):
        log.info("the card of %s was edited on the Hub, and keeps its words", repo_id)
        kept = renamed(with_licence(theirs, _licence_lines(mine.text)), repo_id, revision)
        return _noted(replace(mine, text=stated(kept, was[0])), noted)
    if _hash(theirs) == mine.seen:  # so that what was edited there has been here too
        return _noted(mine, noted)
    if review:
        log.warning("the card of %s was edited on the Hub; that of %s takes its place", repo_id, run)
        return mine
    raise PushError(
        f"The card of {repo_id} was written or edited on the Hub, and this push would put another in its place. Copy "
        f"what should stay into {run / 'README.md'} and delete README.md there (its history keeps it), or push to "
        "another repository."
    )


def text_of(record: RunRecord) -> str:
    """run.json as it is saved."""
    with tempfile.TemporaryDirectory() as aside:
        return record.to_json(Path(aside, "run.json")).read_text(encoding="utf-8")


def renamed(card: str, repo_id: str, revision: str | None = None) -> str:
    """The card with `repo_id`, at `revision`, wherever the code in its section "Use" names a model."""
    start, use, rest = card.partition("\n## Use\n")
    section, heading, tail = rest.partition("\n## ")
    at = f', revision="{revision}"' if revision else ""
    old = r'(?:, revision="[^"]*")?'
    section = re.sub(rf'(from_pretrained\(|model=)"[^"]+"{old}', rf'\g<1>"{repo_id}"{at}', section)
    hub = f"hf-hub:{repo_id}" + (f"@{revision}" if revision else "")
    section = re.sub(r'"(tu-)?(?:local-dir|hf-hub):[^"]+"', lambda m: f'"{m[1] or ""}{hub}"', section)
    at = f" --model-revision {revision}" if revision else ""
    section = re.sub(r"(--model )\S+(?: --model-revision \S+)?", rf"\g<1>{repo_id}{at}", section)
    return start + use + section + heading + tail


def words_of(card: str) -> str:
    """What a card says but for its licence, in a form that two spellings of the metadata share."""
    block, text = BLOCK.match(card), SENTENCE.sub("", BLOCK.sub("", card)).strip()
    head = LICENCE.sub("", (block[1] or "") if block else "")
    try:
        values = yaml.safe_load(head) or {}
        head = json.dumps(values, sort_keys=True, default=str)
    except (yaml.YAMLError, ValueError, TypeError):  # as it stands
        pass
    return f"{head}\n{text}"


def with_licence(card: str, lines: str) -> str:
    """The card with these lines of metadata in the place of those about its licence."""
    block = BLOCK.match(card)
    if block is None:
        return f"---\n{lines}---\n{card}" if lines else card
    return f"---\n{lines}{LICENCE.sub('', block[1] or '')}---\n{card[block.end() :]}"


def stated(card: str, before: str | None = None) -> str:
    """The card whose section on the licence says what its metadata do, where `write_card` wrote it. before: the licence
    that it may have had; other words stay where the metadata state none."""
    found = license_in(card)
    withdrawn = license_sentence(before)
    return SENTENCE.sub(lambda m: license_sentence(found) if found or m[0] == withdrawn else m[0], card)


def _readable(content: bytes, repo_id: str) -> str:
    """The card on the Hub. PushError where it is no text, or its metadata cannot be read."""
    name = f"README.md in {repo_id} on the Hub"
    try:
        card = content.decode("utf-8-sig").replace("\r\n", "\n")
        license_in(card, name)
    except UnicodeDecodeError as error:
        raise PushError(f"{name} is not UTF-8 text (byte {error.start}). Mend or delete it there.") from None
    except UserError as error:
        raise PushError(str(error)) from None
    return card


def _last_pushed(remote: Remote, repo_id: str) -> str:
    """The card as the last push left it; "" where there was none."""
    pushes = [sha for sha, title in remote.commits() if MESSAGE in title]
    return _readable(remote.read("README.md", pushes[0]), repo_id) if pushes else ""


def _licence(card: str) -> list[str | None]:
    return [license_in(card), license_link_in(card)]


def _licence_lines(card: str) -> str:
    block = BLOCK.match(card)
    return "".join(LICENCE.findall((block[1] or "") if block else ""))


def _hash(card: str) -> str:
    return hashlib.sha256(words_of(card).encode()).hexdigest()


def _noted(mine: HubCard, card_hash: str | None) -> HubCard:
    """With a hash to note of the card before edits on the Hub, and that of the text as it goes there."""
    record = mine.record and replace(mine.record, card_hash=card_hash, card_seen=_hash(mine.text))
    return replace(mine, record=record)


def _values(mine: HubCard) -> dict[str, Any]:
    return values_of(text_of(mine.record).encode()) if mine.record else {}


def _facts(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in BESIDE}


def _is_of_its_run(card: str, remote: Remote) -> bool:
    """Whether the words of a card on the Hub are those that the run.json beside it makes: a version before noted no
    hash. The code in its section "Use" is left out, which versions write in different ways."""
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside, "model")
        folder.mkdir()
        (folder / "run.json").write_bytes(remote.read("run.json"))
        for picture in set(PICTURES) & set(remote.files):
            (folder / picture).touch()
        try:
            made = _rendered(folder, card, RunRecord.from_json(folder / "run.json"))
        except Exception:  # not ours, whatever it is: its words are somebody's
            return False
    return _without_code(words_of(made)) == _without_code(words_of(card))


def _without_code(card: str) -> str:
    """The card without the code in its section "Use"."""
    start, use, rest = card.partition("\n## Use\n")
    section, heading, tail = rest.partition("\n## ")
    return start + use + CODE.sub("", section) + heading + tail


def values_of(content: bytes) -> dict[str, Any]:
    """What a file on the Hub holds; nothing where it is none of ours."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _rendered(folder: Path, card: str, record: RunRecord, name: str | None = None, linked: Iterable[str] = ()) -> str:
    """The card of this record, with the licence that `card` states, without touching the folder. name: in place of that
    of the folder. linked: pictures that it shows beside those in the folder."""
    with tempfile.TemporaryDirectory() as aside:
        copy = Path(aside, name or folder.resolve().name)
        copy.mkdir()
        for picture in PICTURES:
            if picture in linked or (folder / picture).is_file():
                (copy / picture).touch()
        (copy / "README.md").write_text(card, encoding="utf-8")
        return write_card(copy, record).read_text(encoding="utf-8")

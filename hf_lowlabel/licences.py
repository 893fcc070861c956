"""The licence that a model card states."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import read_text

log = logging.getLogger("hf_lowlabel")


def card_in(path: Path) -> str:
    """A card with the lines as they stand, without the mark that some editors put in front.

    Args:
        path: README.md.

    Returns:
        Its text, whose metadata can be read.

    Raises:
        UserError: it is not UTF-8, or its metadata cannot be read.
    """
    text = read_text(path, "Save it as UTF-8.").replace("\r\n", "\n")
    metadata(text, str(path))
    return text


def metadata(card: str, source: str = "the card") -> Any:
    """What the block at the top of a card holds; it has `get`.

    Args:
        card: its text.
        source: what a message calls it.

    Raises:
        UserError: the block is no YAML mapping.
    """
    import yaml
    from huggingface_hub import ModelCard

    if not card.startswith("---"):
        return {}
    try:
        return ModelCard(card, ignore_metadata_errors=True).data
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"The block at the top of {source} cannot be read ({said}). Mend it there.") from None


def license_of(readme: Path) -> str | None:
    """`license_in` a file that came with weights, which can be used whatever is in it."""
    try:
        return license_in(readme.read_text(encoding="utf-8-sig", errors="replace"), str(readme))
    except UserError as error:
        log.warning("the licence of the weights is not known: %s", error)
        return None


def license_in(card: str, source: str = "the card") -> str | None:
    """The licence in a model card, under the name its author gave it; of several all. UserError as of `metadata`."""
    data = metadata(card, source)
    found = data.get("license_name") or data.get("license")
    return " and ".join(map(str, found)) if isinstance(found, list) else found and str(found)


def license_link_in(card: str) -> str | None:
    """Where the licence of a model card stands, as its author says."""
    link = metadata(card).get("license_link")
    return link and str(link)

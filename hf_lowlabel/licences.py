"""The licence that a model card states."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def license_of(readme: Path) -> str | None:
    """`license_in` a file."""
    return license_in(readme.read_text(encoding="utf-8", errors="replace"))


def license_in(card: str) -> str | None:
    """The licence in a model card, under the name its author gave it; of several all."""
    data = _metadata(card)
    found = data.get("license_name") or data.get("license")
    return " and ".join(map(str, found)) if isinstance(found, list) else found and str(found)


def license_link_in(card: str) -> str | None:
    """Where the licence of a model card stands, as its author says."""
    link = _metadata(card).get("license_link")
    return link and str(link)


def _metadata(card: str) -> Any:
    from huggingface_hub import ModelCard

    return ModelCard(card, ignore_metadata_errors=True).data if card.startswith("---") else {}

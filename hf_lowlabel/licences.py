"""The licence that a model card states."""

from __future__ import annotations

from pathlib import Path


def license_of(readme: Path) -> str | None:
    """The licence in a model card, under the name its author gave it; of several all."""
    from huggingface_hub import ModelCard

    text = readme.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return None
    data = ModelCard(text, ignore_metadata_errors=True).data
    found = data.get("license_name") or data.get("license")
    return " and ".join(map(str, found)) if isinstance(found, list) else found and str(found)

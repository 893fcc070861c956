"""Pictures to label, and the address of a page with its secret."""

from ..selection.conftest import backbone, paint, photos  # noqa: F401


def at_page(url: str, path: str) -> str:
    """The address of a path of the page at `url`, with its secret."""
    page, _, secret = url.partition("?")
    return f"{page}{path}{'&' if '?' in path else '?'}{secret}"

"""The real huggingface_hub client of this process, pointed at a Hub on the loopback interface."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # hub_server


def connect(server, cache: Path, patch) -> None:
    """Send the client of this process to the server; it read its settings when it was imported."""
    import transformers.utils.hub
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    settings = {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(cache),
    }
    for name, value in settings.items():
        patch.setattr(constants, name, value)
    patch.setattr(transformers.utils.hub, "_hf_api", None)  # one that knows the address of an earlier server
    patch.setenv("HF_TOKEN", "hf_write")
    patch.setenv("NO_PROXY", "localhost,127.0.0.1")
    _http.close_session()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub for one test; the client has a token that may write, and nobody waits between attempts."""
    import time

    from hub_server import Hub
    from huggingface_hub.utils import _http

    with Hub() as server:
        connect(server, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        yield server
    _http.close_session()


@pytest.fixture(scope="module")
def module_hub(tmp_path_factory):
    """A Hub for all tests of a file."""
    from hub_server import Hub
    from huggingface_hub.utils import _http

    with Hub() as server, pytest.MonkeyPatch.context() as patch:
        connect(server, tmp_path_factory.mktemp("cache"), patch)
        yield server
    _http.close_session()

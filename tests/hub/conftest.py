"""The real huggingface_hub client of this process, pointed at a Hub on the loopback interface."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # hub_server


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub for one test; requests go there with a token that may write, and nobody waits between attempts."""
    import time

    from huggingface_hub.utils import _http
    from hub_server import Hub

    with Hub() as server:
        for name, value in {"ENDPOINT": server.url, "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
                            "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
                            "HF_HUB_CACHE": str(tmp_path / "cache")}.items():  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", "hf_write")
        monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        _http.close_session()
        yield server
    _http.close_session()

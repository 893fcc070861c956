"""The demo page of this machine answers no other site and stands in no frame of one."""

import asyncio

import pytest

from hf_lowlabel.hub.app import OwnPages


@pytest.mark.parametrize(
    "origin, status",
    [("", 200), ("http://127.0.0.1:7860", 200), ("http://localhost", 200), ("http://evil.example", 403), ("null", 403)],
)
def test_only_its_own_pages_are_answered(origin, status):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    said = []

    async def send(message):
        said.append(message)

    headers = [(b"origin", origin.encode())] if origin else []
    asyncio.run(OwnPages(app)({"type": "http", "headers": headers}, None, send))
    assert said[0]["status"] == status and said[1]["body"] == (b"page" if status == 200 else b"")
    if status == 200:
        assert (b"content-security-policy", b"frame-ancestors 'none'") in said[0]["headers"]

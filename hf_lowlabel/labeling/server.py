"""The server of the labeling pages: on the loopback address only, and no other host's pages are answered.

Every user of this machine can ask there, so whoever asks shows the secret of the address that the command printed, or
the cookie that the page at that address was given.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from ..errors import UserError, at_least
from ..locks import lock
from .browser import opened

log = logging.getLogger("hf_lowlabel")
TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".avif": "image/avif",
}
FIRST_BYTES = re.compile(  # of these
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|BM.{4}\0\0\0\0|.{4}ftypavi[fs]", re.DOTALL
)
OWN = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}  # files of the pages themselves
POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
LONGEST = 1 << 16  # bytes of a request
BLOCK = 1 << 16  # bytes that are sent at once: each block has the time that a connection may say nothing
LOOPBACK = ("127.0.0.1", "localhost")
BINARY = "application/octet-stream"
STRANGER = "Open the page by the address that the command printed."
ELSEWHERE = "not saved: this tab shows another folder than the one that is labeled at this address now; close it"


class Answer(NamedTuple):
    """What is sent: its type, its bytes, the way they are packed ("gzip"; "": as they are), which version of a file
    they are ("": of none), and the sides of the image they are of ("40 x 30", in px; "": of none)."""

    kind: str
    content: bytes
    encoding: str = ""
    stamp: str = ""
    sides: str = ""


class Session(Protocol):
    """One folder while it is labeled.

    page: our HTML. files: our other files, by the path they are asked by. actions: path -> what takes the JSON that is
    sent there. uploads: path -> what takes the query and the bytes that are sent there, of at most `largest` bytes.
    """

    folder: Path
    page: str
    files: Mapping[str, str]
    largest: int

    def actions(self) -> Mapping[str, Callable[..., dict]]: ...

    def uploads(self) -> Mapping[str, Callable[[dict[str, str], bytes], dict]]: ...

    def state(self) -> dict: ...

    def get(self, path: str, query: dict[str, str]) -> Answer | None:
        """None: there is no such thing."""

    def parting(self) -> str:
        """What the terminal says at the end."""


def picture(file: Path) -> Answer | None:
    """An image as it lies on the disk; None where it does not. `file`: of our own list.

    A link, as git-annex and DVC make them, is followed to images alone: what else it leads to is nobody's to see.
    """
    if not file.is_file():
        return None
    content = file.read_bytes()
    if file.is_symlink() and not FIRST_BYTES.match(content):
        return None
    return Answer(TYPES.get(file.suffix.lower(), BINARY), content)


class Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = 10  # seconds that a connection may say nothing
    by_address = False  # the request has the secret in its address, so that its answer brings the cookie

    def do_GET(self) -> None:
        self.answered(self.got)

    def do_POST(self) -> None:
        self.answered(self.taken)

    def answered(self, work: Callable[[], None]) -> None:
        """Do it; whatever fails, as for want of memory, is named in an answer and in one line of the terminal."""
        try:
            work()
        except (ConnectionError, TimeoutError):  # who asked is gone
            self.close_connection = True
        except Exception as error:
            self.close_connection = True
            log.error("%s failed: %s", self.path.partition("?")[0], told(error))
            with contextlib.suppress(OSError):
                self.send_json({"error": f"this failed: {told(error)}"}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def got(self) -> None:
        asked, session = urlsplit(self.path), self.server.session
        path = unquote(asked.path)
        if not self.from_here():
            self.send(HTTPStatus.FORBIDDEN, "text/plain", self.where_from().encode())
        elif not self.invited(asked.query):
            self.send(HTTPStatus.FORBIDDEN, "text/plain", STRANGER.encode())
        elif path == "/" or path in session.files:
            file = Path(__file__).with_name(session.page if path == "/" else session.files[path])
            self.send(HTTPStatus.OK, OWN[file.suffix], file.read_bytes())
        elif self.of_another_folder():
            self.send_json({"error": ELSEWHERE}, HTTPStatus.CONFLICT)
        else:
            try:
                if path == "/state":
                    found: Answer | dict | None = {**session.state(), "of": self.server.folder}
                else:
                    found = session.get(path, queried(asked.query))
            except (UserError, OSError) as error:
                self.send_json({"error": told(error)}, HTTPStatus.BAD_REQUEST)
                return
            if isinstance(found, dict):
                self.send_json(found)
            elif found is None:
                self.send(HTTPStatus.NOT_FOUND, "text/plain", b"not found; an image may have been moved or renamed")
            else:
                self.send(HTTPStatus.OK, *found)

    def taken(self) -> None:
        session, asked = self.server.session, urlsplit(self.path)
        kind, action, upload = self.headers.get("Content-Type"), None, None
        if not self.from_here() or not self.invited(asked.query):
            self.close_connection = True
            said = STRANGER if self.from_here() else self.where_from()
            self.send(HTTPStatus.FORBIDDEN, "text/plain", said.encode())
            return
        # another site's page can send a form here, but neither of these without asking first
        if kind == "application/json":
            action = session.actions().get(asked.path)
        elif kind == BINARY:
            upload = session.uploads().get(asked.path)
        if action is None and upload is None:
            self.send(HTTPStatus.FORBIDDEN, "text/plain", b"not allowed")
            return
        if self.of_another_folder():
            self.close_connection = True
            self.send_json({"error": ELSEWHERE}, HTTPStatus.CONFLICT)
            return
        try:
            content = self.sent(LONGEST if action else session.largest)
            if action is not None:
                self.send_json(action(**json.loads(content or b"{}")))
            elif upload is not None:
                self.send_json(upload(queried(asked.query), content))
        except TimeoutError:
            self.close_connection = True
        except (UserError, TypeError, ValueError, OSError, RecursionError) as error:
            self.send_json({"error": told(error)}, HTTPStatus.BAD_REQUEST)

    def sent(self, longest: int) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= longest:
            self.close_connection = True
            raise UserError(f"A request has 0 to {longest} bytes, and this one {length}.")
        content = self.rfile.read(length)
        if len(content) != length:
            self.close_connection = True
            raise UserError(f"A request of {length} bytes ended after {len(content)}.")
        return content

    def from_here(self) -> bool:
        """Whether the page itself asks: by this machine's name, and from no other site."""
        port = self.server.server_port
        hosts = [f"{name}:{port}" for name in LOOPBACK]
        hosts += LOOPBACK if port == 80 else ()  # browsers leave the usual port out
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in hosts and origin in (None, *(f"http://{host}" for host in hosts))

    def where_from(self) -> str:
        """What is said to who asks from elsewhere, or by another port of this machine."""
        port = self.server.server_port
        if self.headers.get("Host", "").partition(":")[0] in LOOPBACK and self.headers.get("Origin") is None:
            return (
                f"This page has the port {port} at its machine, and needs the same one here. Forward the same port: "
                f"ssh -L {port}:127.0.0.1:{port} HOST, and open the address that the command printed."
            )
        return "This page is for the machine it runs on, and pages of others are not allowed to ask."

    def of_another_folder(self) -> bool:
        """Whether a tab asks that another folder left open on this port: files there have the same names."""
        return self.headers.get("Labeled-Folder", self.server.folder) != self.server.folder

    def invited(self, query: str) -> bool:
        """Whether who asks has the secret, from the address or as the cookie."""
        pairs = [pair.strip().partition("=") for line in self.headers.get_all("Cookie", []) for pair in line.split(";")]
        shown = [value for name, _, value in pairs if name == self.server.cookie]
        known = self.server.token.encode()
        self.by_address = hmac.compare_digest(queried(query).get("token", "").encode("utf-8", "replace"), known)
        return self.by_address or any(hmac.compare_digest(v.encode("utf-8", "replace"), known) for v in shown)

    def send_json(self, content: dict, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send(status, "application/json", json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))

    def send(
        self, status: HTTPStatus, kind: str, content: bytes, encoding: str = "", stamp: str = "", sides: str = ""
    ) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            *((("Content-Encoding", encoding),) if encoding else ()),
            *((("ETag", f'"{stamp}"'),) if stamp else ()),
            *((("Image-Sides", sides),) if sides else ()),
            *((("Set-Cookie", self.server.set_cookie()),) if self.by_address else ()),
        ):
            self.send_header(name, value)
        self.end_headers()
        left = memoryview(content)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while left:
                self.wfile.write(left[:BLOCK])
                left = left[BLOCK:]

    def log_message(self, *_) -> None:
        """The terminal is for the person."""


def told(error: Exception) -> str:
    """What an error says, on one line and never nothing; of those that were not foreseen with their name."""
    said = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, (UserError, OSError)):
        return str(error) or type(error).__name__
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def queried(query: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}


class PageServer(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128  # a connection beyond those that wait comes again after a second

    def __init__(self, session: Any, port: int = 0):
        self.session: Session = session
        self.token = secrets.token_urlsafe()
        self.folder = hashlib.sha256(f"{session.page} {session.folder.resolve()}".encode()).hexdigest()[:16]
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, *_) -> None:
        """Of a connection that broke there is nothing to say."""
        if not isinstance(error := sys.exc_info()[1], (ConnectionError, TimeoutError)):
            log.error("a request failed: %s", error)

    @property
    def url(self) -> str:
        """The address of the page, with the secret."""
        return f"http://127.0.0.1:{self.server_port}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """A name of its own for each port: cookies are those of all ports of a host."""
        return f"hf_lowlabel_{self.server_port}"

    def set_cookie(self) -> str:
        return f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"


@contextlib.contextmanager
def only_one(folder: Path):
    """One server per folder: two would not know of each other's undo."""
    with open(folder / ".label.lock", "a+") as mark:
        try:
            without = lock(mark)
        except BlockingIOError as error:
            raise UserError(f"{folder} is being labeled by another process. Use its page, or end it first.") from error
        if without:
            log.warning("%s cannot be locked (%s): see to it that no other process labels it", folder, without)
        yield


def serve(session: Session, port: int = 0, open_browser: bool = True, ready: Callable[[], None] | None = None) -> None:
    """Serve a page until Ctrl-C.

    Args:
        session: what is labeled.
        port: on the loopback address (0: a free one).
        open_browser: show the page at once, where there is a browser with a window.
        ready: what is written before the page is shown, once nobody else labels the folder and the port is had.

    Raises:
        UserError: the folder is being labeled by another process, or the port is in use.
    """
    at_least("port", port, 0, 65535)
    with only_one(session.folder):
        try:
            server = PageServer(session, port)
        except OSError as error:
            raise UserError(
                f"The page cannot listen on port {port}: {error.strerror}. Give another --port, or 0 for any."
            ) from error
        ended: SystemExit | None = None
        with server:
            if ready is not None:
                ready()
            where = f"labeling {session.folder}: open {server.url}"
            print(f"{where} (Ctrl-C ends; every label is saved at once)", flush=True)
            try:
                with opened(server.url, session.folder) if open_browser else contextlib.nullcontext():
                    server.serve_forever()
            except KeyboardInterrupt:
                pass
            except SystemExit as error:  # SIGTERM, SIGHUP
                ended = error
        try:
            said = session.parting()
        except (UserError, OSError) as error:  # the folder is not what it was; every label is on the disk all the same
            said = str(error)
    print(f"\n{said}", flush=True)
    if ended is not None:
        raise ended

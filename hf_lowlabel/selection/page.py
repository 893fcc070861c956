"""The labeling page: a folder that `select` wrote, in a browser on this machine, with the keyboard.

Every label is in labels.csv, on disk, before the page shows the next image; history.jsonl remembers the steps, so that
undo works after a crash too. The server listens on the loopback address only and answers no other host's pages.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
import webbrowser
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import UserError, at_least
from .kinds import kind_of
from .labels import Labels, Task, clean, read_labels, read_suggestions, write_labels, write_text

TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".avif": "image/avif",
}
POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
LONGEST = 1 << 16  # bytes of a request


class Session:
    """The labels of one folder while they are given; safe to call from several threads."""

    def __init__(self, folder: str | Path):
        self.folder, self.task, self.lock = Path(folder), Task.load(folder), threading.Lock()
        if not kind_of(self.task.task).on_page:
            raise UserError(
                f"{str(folder)!r} holds a selection for {self.task.task}, but the page is for classification. Paint "
                "the masks in Label Studio (label_studio_tasks.json, label_studio_config.xml)."
            )
        self.csv, self.history = self.folder / "labels.csv", self.folder / "history.jsonl"
        self.classes = self.task.classes(self.folder)
        self.suggestions = read_suggestions(self.folder)
        self.steps = self.read_history()
        if not self.csv.exists():
            write_labels(self.csv, self.task, self.replayed())
        self.labels = self.read()
        self.seen = self.csv.read_bytes()

    def read(self) -> Labels:
        found = read_labels(self.csv, self.task, new_classes=True, allow_missing=True)
        self.classes += [name for name in dict.fromkeys(found.labels.values()) if name not in self.classes]
        return found

    def read_history(self) -> list[dict]:
        """Steps that can be undone; a last line cut short by a crash is left out."""
        steps: list[dict] = []
        ids = set(self.task.files.values())
        for line in self.history.read_bytes().decode("utf-8", "replace").splitlines() if self.history.is_file() else ():
            with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError, AttributeError):
                step = json.loads(line)
                if step.get("undo"):
                    steps[-1:] = []
                elif step["id"] in ids and all({"label", "skipped"} <= step[k].keys() for k in ("before", "after")):
                    steps.append(step)
        return steps

    def replayed(self) -> Labels:
        out = Labels()
        for step in self.steps:
            self.put(out, step["id"], step["after"])
        return out

    @staticmethod
    def put(labels: Labels, id: str, value: dict) -> None:
        labels.labels.pop(id, None)
        labels.skipped.discard(id)
        if value["label"]:
            labels.labels[id] = value["label"]
        elif value["skipped"]:
            labels.skipped.add(id)

    def value(self, id: str) -> dict:
        return {"label": self.labels.labels.get(id, ""), "skipped": id in self.labels.skipped}

    def save(self, id: str, value: dict, step: dict) -> None:
        """The history first, then labels.csv; edits made to the file by hand meanwhile are kept.

        Killed between the two, the history has a step more, whose undo changes nothing. What fails leaves both, and
        what is in memory, as they were.
        """
        if self.csv.exists() and self.csv.read_bytes() != self.seen:
            self.labels = self.read()
        changed = Labels(dict(self.labels.labels), set(self.labels.skipped), self.labels.notes)
        self.put(changed, id, value)
        with open(self.history, "ab") as file:
            length = file.tell()
            try:
                line = json.dumps({**step, "time": round(time.time(), 1)}, ensure_ascii=False)
                file.write(f"{line}\n".encode())
                file.flush()
                os.fsync(file.fileno())
                write_labels(self.csv, self.task, changed)
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(length)
                raise
        self.labels, self.seen = changed, self.csv.read_bytes()

    # ---- what the page asks for --------------------------------------------------------------------------------------
    def state(self) -> dict:
        images = [
            {"file": file, "id": id, **self.value(id), **({"suggestion": said} if (said := self.suggested(id)) else {})}
            for file, id in self.task.files.items()
        ]
        return {
            "images": images,
            "classes": self.classes,
            "folder": self.folder.resolve().name,
            "can_undo": bool(self.steps),
        }

    def suggested(self, id: str) -> dict | None:
        """What a model takes an image for, without a class that is not in the list, and why it is shown."""
        said = self.suggestions.get(id)
        return said and {**said, "class": said["class"] if said["class"] in self.classes else ""}

    def edited(self) -> bool:
        """Whether somebody else has written labels.csv."""
        return self.csv.exists() and self.csv.read_bytes() != self.seen

    def change(self, id: str, everything: bool) -> dict:
        """What a step on one image changed, or all there is."""
        one = {"id": id, **self.value(id), "can_undo": bool(self.steps)}
        return {**self.state(), "id": id} if everything else one

    def label(self, id: str, label: str = "", skipped: bool = False) -> dict:
        with self.lock:
            if id not in set(self.task.files.values()):
                raise UserError(f"There is no image {id!r} in this folder.")
            label = clean(label)
            if label and label not in self.classes:
                raise UserError(f"There is no class {label!r}. Use one of {', '.join(self.classes)}, or add it first.")
            step = {
                "id": id,
                "before": self.value(id),
                "after": {"label": label, "skipped": bool(skipped) and not label},
            }
            edited = self.edited()
            self.save(id, step["after"], step)
            self.steps.append(step)
            return self.change(id, edited)

    def undo(self) -> dict:
        with self.lock:
            if not self.steps:
                raise UserError("There is nothing to undo.")
            step, edited = self.steps[-1], self.edited()
            self.save(step["id"], step["before"], {"undo": True, "id": step["id"]})
            self.steps.pop()
            return self.change(step["id"], edited)

    def new_class(self, name: str) -> dict:
        with self.lock:
            name = clean(name)
            if not name:
                raise UserError("Give the new class a name.")
            if not name.isprintable():
                raise UserError("The name of a class is text on one line. Give one without control characters.")
            same = next((c for c in self.classes if c.casefold() == name.casefold()), None)
            if same is not None:
                raise UserError(f"The class {same!r} exists.")
            write_text(self.folder / "classes.txt", "\n".join([*self.classes, name]) + "\n")
            self.classes.append(name)
            return self.state()


class Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = 10  # seconds that a connection may say nothing

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if not self.from_here():
            self.send(HTTPStatus.FORBIDDEN, "text/plain", b"this page is for the machine it runs on")
        elif path == "/":
            self.send(HTTPStatus.OK, "text/html; charset=utf-8", Path(__file__).with_name("page.html").read_bytes())
        elif path == "/state":
            self.send_json(self.server.session.state())
        elif path.startswith("/images/") and path[8:] in self.server.session.task.files:
            file = self.server.session.folder / "images" / path[8:]
            if file.is_file() and not file.is_symlink():
                self.send(HTTPStatus.OK, TYPES.get(file.suffix.lower(), "application/octet-stream"), file.read_bytes())
            else:
                self.send(HTTPStatus.NOT_FOUND, "text/plain", b"this image was moved or renamed")
        else:
            self.send(HTTPStatus.NOT_FOUND, "text/plain", b"not found")

    def do_POST(self) -> None:
        session = self.server.session
        actions = {"/label": session.label, "/undo": session.undo, "/class": session.new_class}
        action = actions.get(self.path)
        # another site's page can send a form here, but not JSON without asking first
        if not self.from_here() or self.headers.get("Content-Type") != "application/json" or action is None:
            self.send(HTTPStatus.FORBIDDEN, "text/plain", b"not allowed")
            return
        try:
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 <= length <= LONGEST:
                self.close_connection = True
                raise UserError(f"A request has 0 to {LONGEST} bytes, and this one {length}.")
            self.send_json(action(**json.loads(self.rfile.read(length) or b"{}")))
        except TimeoutError:
            self.close_connection = True
        except (UserError, TypeError, ValueError, OSError, RecursionError) as error:
            self.send_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    def from_here(self) -> bool:
        """Whether the page itself asks: by this machine's name, and from no other site."""
        hosts = [f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")]
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in hosts and origin in (None, *(f"http://{host}" for host in hosts))

    def send_json(self, content: dict, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send(status, "application/json", json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))

    def send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        """The terminal is for the person."""


class PageServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, session: Session, port: int = 0):
        self.session = session
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


@contextlib.contextmanager
def only_one(folder: Path):
    """One server per folder: two would not know of each other's undo."""
    with open(folder / ".label.lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{folder} is being labeled by another process. Use its page, or end it first.") from error
        yield


def label(folder: str, *, port: int = 0, open_browser: bool = True) -> Labels:
    """Serve the page until Ctrl-C.

    Args:
        folder: what `select` wrote.
        port: on the loopback address (0: a free one).
        open_browser: show the page at once.

    Returns:
        The labels there are then.

    Raises:
        UserError: for a folder that is none, is for masks, or is being labeled by another process; and a port in use.
    """
    at_least("port", port, 0, 65535)
    session = Session(folder)
    with only_one(session.folder):
        try:
            server = PageServer(session, port)
        except OSError as error:
            raise UserError(
                f"The page cannot listen on port {port}: {error.strerror}. Give another --port, or 0 for any."
            ) from error
        print(f"labeling {session.folder}: open {server.url} (Ctrl-C ends; every label is saved at once)", flush=True)
        if open_browser:
            webbrowser.open(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
        server.server_close()
    done = session.labels
    print(
        f"\n{len(done.labels)} labeled, {len(done.skipped)} skipped of {len(session.task.files)}; next: "
        f"hf-lowlabel split --from {session.folder}"
    )
    return done

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

from ..errors import UserError
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
    "connect-src 'self'"
)


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
        for line in self.history.read_text(encoding="utf-8").splitlines() if self.history.exists() else ():
            with contextlib.suppress(ValueError):
                step = json.loads(line)
                steps.pop() if step.get("undo") and steps else steps.append(step)
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
        """labels.csv first, then the history; edits made to the file by hand meanwhile are kept."""
        if self.csv.exists() and self.csv.read_bytes() != self.seen:
            self.labels = self.read()
        self.put(self.labels, id, value)
        write_labels(self.csv, self.task, self.labels)
        self.seen = self.csv.read_bytes()
        with open(self.history, "a", encoding="utf-8") as file:
            file.write(json.dumps({**step, "time": round(time.time(), 1)}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

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
            same = next((c for c in self.classes if c.casefold() == name.casefold()), None)
            if same is not None:
                raise UserError(f"The class {same!r} exists.")
            self.classes.append(name)
            write_text(self.folder / "classes.txt", "\n".join(self.classes) + "\n")
            return self.state()


class Handler(BaseHTTPRequestHandler):
    server: PageServer

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
            if file.is_file():
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
            body = json.loads(self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 1 << 16)) or b"{}")
            self.send_json(action(**body))
        except (UserError, TypeError, ValueError, OSError) as error:
            self.send_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    def from_here(self) -> bool:
        port = self.server.server_port
        return self.headers.get("Host") in (f"127.0.0.1:{port}", f"localhost:{port}")

    def send_json(self, content: dict, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send(status, "application/json", json.dumps(content, ensure_ascii=False).encode())

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
        with contextlib.suppress(BrokenPipeError):
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

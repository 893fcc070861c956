"""What the loopback Hub (hub_server.py) keeps: repositories, commits, branches, pull requests, files."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
from dataclasses import dataclass, field

import yaml

LARGE = ("*.safetensors", "*.bin", "*.pt", "*.parquet", "*.arrow", "*.npz", "*.zip", "*.onnx")
DATE = "2025-01-01T00:00:00.000Z"


class Refused(Exception):
    def __init__(self, status: int, code: str | None = None, message: str = ""):
        self.status, self.code, self.message = status, code, message


@dataclass
class File:
    data: bytes
    large: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """The git object's name: of the content, or of the LFS pointer that stands for it."""
        content = self.data
        if self.large:
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
            content = pointer.encode()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.oid

    def info(self, path: str) -> dict:
        lfs = {"lfs": {"oid": self.sha256, "size": len(self.data), "pointerSize": 130}} if self.large else {}
        return {"type": "file", "path": path, "oid": self.oid, "size": len(self.data), **lfs}


def is_large(path: str, size: int) -> bool:
    return size > 10 << 20 or any(fnmatch.fnmatch(path.split("/")[-1], pattern) for pattern in LARGE)


@dataclass
class Commit:
    files: dict[str, File]
    title: str
    parent: str | None


@dataclass
class Repo:
    type: str
    id: str
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)  # users let into a gated repository
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # "main", other branches, "refs/pr/1" -> sha
    tags: dict[str, str] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)  # of the pull requests among refs

    def commit(self, files: dict[str, File], title: str, ref: str = "main") -> str:
        sha = hashlib.sha1(f"{self.type}/{self.id}/{len(self.commits)}/{title}".encode()).hexdigest()
        self.commits[sha] = Commit(files, title, self.refs.get(ref))
        self.refs[ref] = sha
        return sha

    def sha(self, revision: str) -> str:
        found = self.refs.get(revision) or self.tags.get(revision) or revision
        if found not in self.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def at(self, revision: str) -> tuple[str, dict[str, File]]:
        sha = self.sha(revision)
        return sha, self.commits[sha].files

    def content(self, revision: str = "main") -> dict[str, bytes]:
        """What a test compares: path -> bytes, without the Hub's own .gitattributes."""
        return {path: file.data for path, file in self.at(revision)[1].items() if path != ".gitattributes"}

    def history(self, revision: str = "main") -> list[str]:
        """Titles, newest first."""
        sha, out = self.sha(revision), []
        while sha:
            out.append(self.commits[sha].title)
            sha = self.commits[sha].parent
        return out

    def info(self, revision: str, blobs: bool) -> dict:
        sha, files = self.at(revision)
        card = front_matter(files.get("README.md"))
        siblings = [
            {"rfilename": path, **({"size": len(file.data), "blobId": file.oid} if blobs else {})}
            for path, file in sorted(files.items())
        ]
        out = {
            "_id": "0" * 24,
            "id": self.id,
            "sha": sha,
            "private": self.private,
            "gated": self.gated,
            "disabled": False,
            "author": self.id.split("/")[0],
            "createdAt": DATE,
            "lastModified": DATE,
            "downloads": 0,
            "likes": 0,
            "tags": list(card.get("tags") or []),
            "cardData": card,
            "siblings": siblings,
        }
        if self.type == "model":
            out |= {"modelId": self.id} | {key: card.get(key) for key in ("library_name", "pipeline_tag")}
        return out

    def discussions(self, status: str | None) -> dict:
        """The pull requests, newest first, as one page."""
        found = [
            {
                "num": int(ref.rpartition("/")[2]),
                "title": self.commits[sha].title,
                "author": {"name": "tester"},
                "createdAt": DATE,
                "isPullRequest": True,
                "status": "closed" if ref in self.closed else "open",
                "repo": {"name": self.id, "type": self.type},
            }
            for ref, sha in reversed(self.refs.items())
            if ref.startswith("refs/pr/")
        ]
        found = [pull for pull in found if status in (None, pull["status"])]
        return {"discussions": found, "count": len(found), "start": 0}

    def apply(self, revision: str, body: bytes, objects: dict[str, bytes], pull_request: bool) -> tuple[str, str]:
        """A commit as the client describes it, line by line; (its sha, the ref it is on). All of it or nothing."""
        head, present = self.at(revision)
        files, header = dict(present), {}
        for line in filter(None, body.splitlines()):
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                header = value
            elif key == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                if value["oid"] not in objects:
                    raise Refused(400, None, f"the content of {value['path']} was not uploaded")
                files[value["path"]] = File(objects[value["oid"]], large=True)
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
            else:
                raise Refused(400, None, f"unknown operation {key}")
        parent = header.get("parentCommit")
        if pull_request:
            number = 1 + sum(ref.startswith("refs/pr/") for ref in self.refs)
            revision = f"refs/pr/{number}"
            self.refs[revision] = self.sha(parent) if parent else head
        elif parent and parent != head:
            raise Refused(412, None, "A commit has happened since. Please refresh and try again.")
        return self.commit(files, header.get("summary", ""), revision), revision


def front_matter(readme: File | None) -> dict:
    """What the Hub knows of a card; nothing where its block cannot be read."""
    match = readme and re.match(r"---\s*\n(.*?)\n---", readme.data.decode(errors="replace"), re.S)
    try:
        found = yaml.safe_load(match[1]) if match else None
    except (yaml.YAMLError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

"""A Hub on the loopback interface, for tests with the real clients: repositories in memory, downloads, uploads, faults.

    with Hub() as hub:
        sha = hub.add("dataset", "org/name", {"train.parquet": content})
        run(["python", ...], env={**os.environ, **hub.env(tmp_path)})   # the clients read HF_ENDPOINT when imported
        hub.fault("/resolve/", status=503, times=2)
        hub.requests                                                    # [(method, path, status), ...]

Uploads of large files use plain LFS: HF_HUB_DISABLE_XET=1, which `env` sets. Tokens: "hf_write" may write under
"tester" and "org", "hf_other" under "other", "hf_read" may only read.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from hub_repos import DATE, File, Refused, Repo, is_large

TOKENS = {  # token -> (user, role, where it may write)
    "hf_write": ("tester", "write", ("tester", "org")),
    "hf_other": ("other", "write", ("other",)),
    "hf_read": ("reader", "read", ()),
}


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        port = self.server_address[1]
        self.url = f"http://127.0.0.1:{port}"
        self.storage = f"http://localhost:{port}"  # large files come from another host name, as on the real Hub
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[dict] = []
        self.requests: list[tuple[str, str, int | str]] = []
        self.before = lambda method, path: None  # a test's own hook, called before a request is answered
        self.lock = threading.RLock()

    def __enter__(self) -> Hub:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()

    def env(self, home, token: str | None = None) -> dict[str, str]:
        """What a client's process needs; merge it into os.environ. `home`: a folder for its cache."""
        env = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "localhost,127.0.0.1",
        }
        return env | ({"HF_TOKEN": token} if token else {})

    def add(self, type: str, id: str, files: dict[str, bytes], title: str = "files", tag: str | None = None) -> str:
        """Commit files without a client; the commit's sha."""
        repo = self.repos.setdefault((type, id), Repo(type, id))
        kept = repo.at("main")[1] if repo.commits else {}
        sha = repo.commit(kept | {path: File(data, is_large(path, len(data))) for path, data in files.items()}, title)
        if tag:
            repo.tags[tag] = sha
        return sha

    def fault(
        self,
        pattern: str,
        status: int | None = None,
        times: int = 1,
        method: str | None = None,
        *,
        skip: int = 0,
        done: bool = False,
    ) -> None:
        """The next `times` requests (-1: all) after `skip` whose path matches get `status`, or no answer at all: the
        connection is dropped. `done`: what they asked for is done all the same, only the answer is lost."""
        self.faults.append(
            {"pattern": pattern, "status": status, "times": times, "method": method, "skip": skip, "done": done}
        )

    def take_fault(self, method: str, path: str) -> dict | None:
        for fault in self.faults:
            if fault["times"] and fault["method"] in (None, method) and re.search(fault["pattern"], path):
                if fault["skip"]:
                    fault["skip"] -= 1
                    continue
                fault["times"] -= 1
                return fault
        return None


class Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # an answer's second packet waits 40 ms for the first to be acknowledged
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_) -> None:
        pass

    def answer(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        body = self.body()
        self.server.before(self.command, url.path)
        with self.server.lock:
            fault = self.server.take_fault(self.command, url.path)
            status, out, headers = self.done(url.path, body) if fault is None or fault["done"] else (0, b"", {})
        if fault is not None and fault["status"] is None:
            self.server.requests.append((self.command, self.path, "dropped"))
            self.close_connection = True
            self.connection.close()
            return
        if fault is not None:  # a gateway's page, not JSON
            status, out, headers = fault["status"], b"<html>injected fault</html>", {}
        self.server.requests.append((self.command, self.path, status))
        data = out if isinstance(out, bytes) else json.dumps(out).encode()
        kind = "application/octet-stream" if isinstance(out, bytes) else "application/json"
        self.send_response(status)
        for name, value in ({"Content-Type": kind, "Content-Length": len(data)} | headers).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def done(self, path: str, body: bytes) -> tuple[int, object, dict]:
        try:
            self.user, self.role, self.namespaces = self.who()
            return self.route(path, body)
        except Refused as refused:
            headers = {"X-Error-Message": refused.message} | ({"X-Error-Code": refused.code} if refused.code else {})
            return refused.status, {"error": refused.message}, headers

    def body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        out = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            out += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return out

    # ---- who may do what --------------------------------------------------------------------------------------------
    def who(self) -> tuple[str | None, str | None, tuple[str, ...]]:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip()
        if token and token not in TOKENS:
            raise Refused(401, None, "Invalid credentials in Authorization header")
        return TOKENS[token] if token else (None, None, ())

    def must_write(self, id: str) -> None:
        if self.user is None:
            raise Refused(401, None, "Invalid username or password.")
        if id.split("/")[0] not in self.namespaces:
            raise Refused(403, None, f"You don't have the rights to write to {id}")

    def repo(self, type: str, id: str, write: bool = False, content: bool = False) -> Repo:
        repo, owner = self.server.repos.get((type, id)), id.split("/")[0] in self.namespaces
        if repo is None or (repo.private and not owner):
            raise Refused(401 if self.user is None else 404, "RepoNotFound", "Repository not found")
        if content and repo.gated and not owner and self.user not in repo.readers:
            raise Refused(401 if self.user is None else 403, "GatedRepo", f"Access to {id} is restricted")
        if write:
            self.must_write(id)
        return repo

    # ---- what is asked ----------------------------------------------------------------------------------------------
    def route(self, path: str, body: bytes) -> tuple[int, object, dict]:
        hub = self.server
        if path == "/api/whoami-v2":
            if self.user is None:
                raise Refused(401, None, "Invalid username or password.")
            access = {"accessToken": {"displayName": "test", "role": self.role}}
            orgs = [{"name": n} for n in self.namespaces if n != self.user]
            return 200, {"type": "user", "name": self.user, "fullname": self.user, "orgs": orgs, "auth": access}, {}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if match := re.fullmatch(r"/(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self.repo((match[1] or "models/")[:-2], match[2], write=True)
            objects = [{**o, "authenticated": True} for o in json.loads(body)["objects"]]
            for o in objects:
                if o["oid"] not in hub.objects:
                    o["actions"] = {"upload": {"href": f"{hub.url}/lfs/{o['oid']}"}}
            return 200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"}
        if match := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            if self.command != "PUT":
                return self.ranged(hub.objects[match[1]], {"ETag": f'"{match[1]}"'})
            if hashlib.sha256(body).hexdigest() != match[1]:
                raise Refused(400, None, "the content is not what was announced")
            hub.objects[match[1]] = body
            return 200, b"", {}
        if match := re.fullmatch(r"/(datasets/|spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve((match[1] or "models/")[:-2], match[2], unquote(match[3]), unquote(match[4]))
        if match := re.fullmatch(r"/api/(model|dataset|space)s/([^/]+/[^/]+?)(?:/([a-z-]+)(?:/(.*))?)?", path):
            return self.api(match[1], match[2], match[3] or "revision", unquote(match[4] or ""), body)
        raise Refused(404, None, f"no route for {self.command} {path}")

    def create(self, asked: dict) -> tuple[int, object, dict]:
        type, id = asked.get("type") or "model", f"{asked.get('organization') or self.user}/{asked['name']}"
        self.must_write(id)
        url = f"{self.server.url}/{'' if type == 'model' else type + 's/'}{id}"
        if (type, id) in self.server.repos:
            return 409, {"error": "You already created this repo", "url": url}, {}
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server.repos[type, id] = repo = Repo(type, id, private)
        repo.commit({".gitattributes": File(b"")}, "initial commit")
        return 200, {"url": url, "name": id, "id": "0"}, {}

    def resolve(self, type: str, id: str, revision: str, path: str) -> tuple[int, object, dict]:
        sha, files = self.repo(type, id, content=True).at(revision)
        headers = {"X-Repo-Commit": sha}
        if path not in files:  # with the commit, so that a client remembers that it has no such file
            why = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return 404, {"error": "Entry not found"}, headers | why
        file = files[path]
        if not file.large:
            return self.ranged(file.data, headers | {"ETag": f'"{file.etag}"'})
        self.server.objects[file.sha256] = file.data
        linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": len(file.data)}
        return 302, b"", headers | linked | {"Location": f"{self.server.storage}/lfs/{file.sha256}"}

    def ranged(self, data: bytes, headers: dict) -> tuple[int, object, dict]:
        headers |= {"Accept-Ranges": "bytes"}
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if not match:
            return 200, data, headers
        first, last = match.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        stop = min(int(last) + 1, len(data)) if first and last else len(data)
        if start >= len(data):
            return 416, b"", headers | {"Content-Range": f"bytes */{len(data)}"}
        return 206, data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}

    def api(self, type: str, id: str, what: str, rest: str, body: bytes) -> tuple[int, object, dict]:
        repo = self.repo(type, id, what in ("preupload", "commit", "tag", "branch"), what in ("tree", "paths-info"))
        if what == "revision":
            return 200, repo.info(rest or "main", "blobs" in self.query), {}
        if what == "refs":

            def listed(refs: dict, kind: str) -> list[dict]:
                return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": sha} for n, sha in refs.items()]

            pulls = {n.removeprefix("refs/pr/"): sha for n, sha in repo.refs.items() if n.startswith("refs/")}
            branches = {n: sha for n, sha in repo.refs.items() if not n.startswith("refs/")}
            return (
                200,
                {
                    "branches": listed(branches, "heads"),
                    "converts": [],
                    "tags": listed(repo.tags, "tags"),
                    "pullRequests": listed(pulls, "pr"),
                },
                {},
            )
        if what == "discussions":
            return 200, repo.discussions(self.query.get("status")), {}
        if what == "commits":
            return (
                200,
                [
                    {"id": sha, "title": c.title, "message": "", "date": DATE, "authors": []}
                    for sha, c in reversed(repo.commits.items())
                ],
                {},
            )
        if what == "tag":
            repo.tags[json.loads(body)["tag"]] = repo.at(rest)[0]
            return 200, {}, {}
        if what == "branch":
            repo.refs.setdefault(rest, repo.sha((json.loads(body) if body else {}).get("startingPoint") or "main"))
            return 200, {}, {}
        if what == "tree":
            revision, _, folder = rest.partition("/")
            return self.tree(repo.at(revision)[1], folder.strip("/"))
        if what == "paths-info":
            return self.paths_info(repo.at(rest)[1], body)
        if what == "preupload":
            files, present = json.loads(body)["files"], repo.at(rest)[1]
            return (
                200,
                {
                    "files": [
                        {
                            "path": f["path"],
                            "shouldIgnore": False,
                            "uploadMode": "lfs" if is_large(f["path"], f["size"]) else "regular",
                            "oid": present[f["path"]].etag if f["path"] in present else None,
                        }
                        for f in files
                    ]
                },
                {},
            )
        if what == "commit":
            return self.commit(repo, rest, body)
        raise Refused(404, None, f"no route for {self.command} {self.path}")

    def tree(self, files: dict[str, File], folder: str) -> tuple[int, object, dict]:
        prefix = folder + "/" if folder else ""
        deep = self.query.get("recursive") in ("1", "true", "True")
        out, folders = [], set()
        for path, file in sorted(files.items()):
            if path.startswith(prefix):
                *above, _ = path[len(prefix) :].split("/")
                depth = len(above) if deep else min(1, len(above))
                folders |= {prefix + "/".join(above[: n + 1]) for n in range(depth)}
                if deep or not above:
                    out.append(file.info(path))
        if folder and not out and not folders:
            raise Refused(404, "EntryNotFound", f"{folder} does not exist")
        return 200, [{"type": "directory", "oid": "0" * 40, "size": 0, "path": f} for f in sorted(folders)] + out, {}

    def paths_info(self, files: dict[str, File], body: bytes) -> tuple[int, object, dict]:
        try:
            paths = json.loads(body)["paths"]
        except ValueError:  # older clients send a form
            paths = parse_qs(body.decode()).get("paths", [])
        out = []
        for path in [paths] if isinstance(paths, str) else paths:
            if path in files:
                out.append(files[path].info(path))
            elif any(name.startswith(path.rstrip("/") + "/") for name in files) or not path:
                out.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": path})
        return 200, out, {}

    def commit(self, repo: Repo, revision: str, body: bytes) -> tuple[int, object, dict]:
        pull = self.query.get("create_pr") == "1"
        sha, ref = repo.apply(revision, body, self.server.objects, pull)
        base = f"{self.server.url}/{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}"
        out = {"success": True, "commitOid": sha, "commitUrl": f"{base}/commit/{sha}"}
        return 200, out | ({"pullRequestUrl": f"{base}/discussions/{ref.split('/')[-1]}"} if pull else {}), {}

"""What a push makes of a licence that was changed or withdrawn, in the folder and on the Hub: all cases."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from hub_runs import asking, licensed, unlicensed
from huggingface_hub import ModelCard

from hf_lowlabel.hub import push as module
from hf_lowlabel.hub.push import push_folder
from hf_lowlabel.hub.upload import PushError, Remote, Uploaded

STATES = ("same", "changed", "withdrawn")
# (licence that the last push left, of a folder that stated mit; folder since; Hub since) -> what must be there
AGREED = {
    ("mit", "same", "same"): "mit",
    ("mit", "same", "changed"): "cc0-1.0",
    ("mit", "same", "withdrawn"): None,
    ("mit", "changed", "same"): "bsd",
    ("mit", "changed", "changed"): "bsd",
    ("mit", "changed", "withdrawn"): "bsd",
    ("mit", "withdrawn", "same"): None,
    ("mit", "withdrawn", "changed"): "cc0-1.0",
    ("mit", "withdrawn", "withdrawn"): None,
    ("isc", "same", "same"): "isc",
    ("isc", "same", "changed"): "cc0-1.0",
    ("isc", "same", "withdrawn"): None,
    ("isc", "changed", "same"): "bsd",
    ("isc", "changed", "changed"): "bsd",
    ("isc", "changed", "withdrawn"): "bsd",
    ("isc", "withdrawn", "same"): "isc",  # which is not what the folder withdraws
    ("isc", "withdrawn", "changed"): "cc0-1.0",
    ("isc", "withdrawn", "withdrawn"): None,
    (None, "same", "same"): None,
    (None, "same", "changed"): "cc0-1.0",
    (None, "changed", "same"): "bsd",
    (None, "changed", "changed"): "bsd",
    (None, "withdrawn", "same"): None,
    (None, "withdrawn", "changed"): "cc0-1.0",
}
LEARNED = {("isc", "withdrawn", "same"): None}  # the folder has taken it over, and withdraws that
REFUSED = "refused"
WITHOUT_NOTES = {  # a folder without run.json
    ("same", "same"): "mit",
    ("same", "changed"): REFUSED,
    ("same", "withdrawn"): REFUSED,
    ("changed", "same"): "bsd",
    ("changed", "changed"): REFUSED,
    ("changed", "withdrawn"): REFUSED,
    ("withdrawn", "same"): "mit",  # it may never have had one
    ("withdrawn", "changed"): "cc0-1.0",
    ("withdrawn", "withdrawn"): None,
}
# a folder that takes over nothing is one case, whyever that is
ALIKE = [("isc", "same", "same"), ("mit", "withdrawn", "same"), ("isc", "changed", "withdrawn")]
OTHER_WAYS = ("pull request", "smp", "read-only")
CASES = [(way, *case) for way in ("main", "branch") for case in AGREED]
CASES += [(way, *case) for way in OTHER_WAYS for case in ALIKE]


class Repo:
    """A repository in memory, where a pull request is merged at once."""

    def __init__(self):
        self.commits: list[tuple[str, dict[str, bytes]]] = []

    @property
    def files(self):
        return self.commits[-1][1] if self.commits else {}

    @property
    def licence(self):
        data = ModelCard(self.files["README.md"].decode()).data
        return data.get("license_name") or data.license

    def commit(self, title, files):
        kept = {path: content for path, content in files.items() if content is not None}
        if kept != self.files:
            self.commits.append((title, kept))

    def edit(self, change):
        self.commit("edited", {**self.files, "README.md": change(self.files["README.md"].decode()).encode()})

    def upload(self, make, repo_id, *, message, create_pr=False, **_):
        def read(path, at=None):
            return (self.files if at is None else self.commits[int(at)][1])[path]

        def titles():
            return [(str(at), title) for at, (title, _) in reversed(list(enumerate(self.commits)))]

        made = make(Remote("", list(self.files), read, lambda files: False, titles))
        content = {path: c if c is None or isinstance(c, bytes) else c.read_bytes() for path, c in made.items()}
        self.commit(message + " (#1)" * create_pr, {**self.files, **content})
        return Uploaded(repo_id, hashlib.sha1(str(self.files).encode()).hexdigest(), "page")


@pytest.fixture
def repo(monkeypatch):
    repo = Repo()
    monkeypatch.setattr(module, "upload", repo.upload)
    return repo


@pytest.fixture
def run(tmp_path):
    run = unlicensed(tmp_path / "model")
    change(run, "mit")
    return run


def stating(card, licence):
    lines = [line for line in card.splitlines(True) if not line.startswith("license")]
    return licensed(f"license: {licence}")("".join(lines)) if licence else "".join(lines)


def change(run, licence):
    (run / "README.md").write_text(stating((run / "README.md").read_text(), licence))


def pushed(run, way, monkeypatch):
    """Push it: to main, in one of OTHER_WAYS or to a branch."""
    folder = run
    if way == "smp":
        folder = run.with_name("copy")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder)
    if way == "read-only":
        monkeypatch.setattr(module.os, "access", lambda path, mode: False)
        monkeypatch.setattr(module, "write_text", refuse)
    revision = "v2" if way == "branch" else None
    push_folder(
        folder,
        "org/pets",
        run=run,
        again=dict(private=False, create_pr=way == "pull request", revision=revision),
        as_smp=way == "smp",
    )


def refuse(path, text):
    raise PermissionError(13, "Permission denied", str(path))


def happen(run, repo, folder, there):
    if folder != "same":
        change(run, "bsd" if folder == "changed" else None)
    if there != "same":
        repo.edit(lambda card: stating(card, "cc0-1.0" if there == "changed" else None))


@pytest.mark.parametrize(("way", "left", "folder", "there"), CASES)
def test_the_licence_that_a_push_leaves(repo, run, monkeypatch, way, left, folder, there):
    pushed(run, way, monkeypatch)
    if left != "mit":
        repo.edit(lambda card: stating(card, left))
        pushed(run, way, monkeypatch)
    assert repo.licence == left
    happen(run, repo, folder, there)
    case = left, folder, there
    wanted = AGREED[case] if way != "main" else LEARNED.get(case, AGREED[case])
    pushed(run, way, monkeypatch)
    assert repo.licence == json.loads(repo.files["run.json"])["license"] == wanted
    commits = list(repo.commits)
    pushed(run, way, monkeypatch)  # what is there makes no commit
    assert repo.commits == commits


@pytest.mark.parametrize("case", WITHOUT_NOTES, ids=lambda case: f"{case[0]} here, {case[1]} there")
def test_the_licence_that_a_push_without_a_run_leaves(repo, run, monkeypatch, case):
    (run / "run.json").unlink()
    pushed(run, "main", monkeypatch)
    happen(run, repo, *case)
    before = list(repo.commits)
    if WITHOUT_NOTES[case] == REFUSED:
        with pytest.raises(PushError, match="edited on the Hub"):
            pushed(run, "main", monkeypatch)
        assert repo.commits == before
        return
    pushed(run, "main", monkeypatch)
    assert repo.licence == WITHOUT_NOTES[case]
    commits = list(repo.commits)
    pushed(run, "main", monkeypatch)
    assert repo.commits == commits


@pytest.mark.parametrize("there", STATES)
def test_a_link_that_an_earlier_version_did_not_note(repo, run, monkeypatch, there):
    change(run, "other\nlicense_name: clinic\nlicense_link: LICENSE")
    pushed(run, "main", monkeypatch)
    facts = json.loads(repo.files["run.json"])
    facts = {name: value for name, value in facts.items() if name not in ("license_link", "license_here")}
    repo.commit("of an earlier version", {**repo.files, "run.json": json.dumps(facts).encode()})
    happen(run, repo, "same", there)
    pushed(run, "main", monkeypatch)
    assert repo.licence == {"same": "clinic", "changed": "cc0-1.0", "withdrawn": None}[there]
    link = ModelCard(repo.files["README.md"].decode()).data.get("license_link")
    assert link == ("LICENSE" if there == "same" else None)


def test_a_folder_that_learned_a_licence_of_a_branch_keeps_its_own(repo, run, monkeypatch):
    """A model that was downloaded from a branch brings the notes of another folder with it."""
    pushed(run, "branch", monkeypatch)
    repo.edit(lambda card: stating(card, "isc"))
    pushed(run, "branch", monkeypatch)
    for name in ("README.md", "run.json"):
        (run / name).write_bytes(repo.files[name])
    pushed(run, "branch", monkeypatch)
    assert json.loads(repo.files["run.json"])["license_here"] is None
    change(run, "mit")
    pushed(run, "branch", monkeypatch)
    assert repo.licence == "mit"


@pytest.mark.parametrize("way", ["main", "branch", *OTHER_WAYS])
def test_words_of_the_hub_stay_however_a_folder_is_pushed(repo, run, monkeypatch, way):
    pushed(run, way, monkeypatch)
    repo.edit(asking)
    for steps in range(3):
        (run / "metrics.json").write_text(json.dumps({"accuracy": steps / 4}))
        pushed(run, way, monkeypatch)
        assert b"Ask me anything." in repo.files["README.md"] and len(repo.commits) == 3 + steps

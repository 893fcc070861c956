"""push: what travels, what does not, and who may."""

from __future__ import annotations

import json
import logging

import pytest
import yaml
from hub_runs import listing, make_run
from huggingface_hub import HfApi, ModelCard

from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.hub.hub_card import renamed
from hf_lowlabel.hub.push import push
from hf_lowlabel.hub.splits import push_split
from hf_lowlabel.hub.upload import PushError, check_access

SHARED = {
    "README.md",
    "config.json",
    "curves.png",
    "log.jsonl",
    "metrics.json",
    "model.safetensors",
    "preprocessor_config.json",
    "run.json",
    "split.json",
    "training.yaml",
}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "model")


def test_one_commit_with_all_that_belongs_to_a_model(hub, run, caplog):
    before = listing(run)
    with caplog.at_level(logging.INFO, "hf_lowlabel"):
        done = push(run, "org/pets")
    repo = hub.repos["model", "org/pets"]
    there = repo.content()
    assert set(there) == SHARED and done.commit == repo.refs["main"]
    assert repo.history() == ["fixmatch on pets: weights, configuration, card, split, metrics", "initial commit"]
    for name in SHARED - {"README.md", "run.json", "training.yaml"}:
        assert there[name] == before[name], name
    card = ModelCard(there["README.md"].decode())
    assert card.text.startswith("# pets\n") and 'model="org/pets"' in card.text and card.data.license == "mit"
    assert json.loads(there["run.json"])["hub_id"] == "org/pets"
    assert yaml.safe_load(there["training.yaml"]) == {"learning_rate": 1.0, "dataset": "path/to/photos"}
    assert str(run.parent) not in b"".join(there.values()).decode("latin-1")
    after = listing(run)  # the folder now knows its name on the Hub, and is otherwise as it was
    assert after["README.md"] == there["README.md"] and after["run.json"] == there["run.json"]
    assert {k: v for k, v in after.items() if k not in ("README.md", "run.json")} == {
        k: v for k, v in before.items() if k not in ("README.md", "run.json")
    }
    assert "not shared: notes.txt" in caplog.text and "states no licence" not in caplog.text


def test_of_a_launch_the_first_process_uploads_and_asks_no_other(hub, run, monkeypatch):
    """Whether all call it, or the first one alone."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    split = Split("photos", ["cat", "dog"], {"a.png": "cat", "b.png": "dog"})
    others = push(run, "org/pets"), push_split(split, "org/splits"), push(run.parent / "elsewhere", "org/pets")
    assert not hub.repos and not any(one.commit or one.pull_request for one in others)
    monkeypatch.setenv("RANK", "0")
    done = push(run, "org/pets"), push_split(split, "org/splits")
    assert all(one.commit for one in done) and [one.url for one in done] == [one.url for one in others[:2]]
    assert hub.repos.keys() == {("model", "org/pets"), ("dataset", "org/splits")}


def test_what_needs_no_network_is_refused_on_every_process(hub, run, tmp_path, monkeypatch):
    """Where the first one alone raised, the others would wait for it."""
    split = Split("photos", ["cat", "dog"], {"a.png": "cat", "b.png": "dog"})
    (tmp_path / "split.json").write_text("{")
    (tmp_path / "priors.safetensors").write_bytes(b"x")
    refused = [
        (lambda: push_split(split, "org/splits", name="a b"), "is neither"),
        (lambda: push_split(split, "splits"), "Give org/name"),
        (lambda: push_split(tmp_path / "split.json", "org/splits"), "split.json"),
        (lambda: push_split(split, "org/splits", priors=tmp_path / "priors.safetensors"), "no prior pseudo-labels"),
        (lambda: push_split(split, "org/splits", create_pr=True, revision="half"), "Leave one of them out"),
        (lambda: push(run, "org/pets", create_pr=True, revision="half"), "Leave one of them out"),
    ]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        for work, words in refused:
            with pytest.raises(UserError, match=words):
                work()
    assert not hub.requests
    assert push_split(tmp_path / "elsewhere.json", "org/splits").commit == ""  # a disk of another machine


def test_again_makes_no_commit_and_a_new_model_replaces_the_old_one(hub, run, tmp_path):
    first = push(run, "org/pets")
    assert push(run, "org/pets") == first and len(hub.repos["model", "org/pets"].history()) == 2
    hub.add("model", "org/pets", {"confusion.png": b"of an older model", "figure.png": b"the author's own"})
    other = make_run(tmp_path / "other", 2.0)
    push(other, "org/pets")
    there = hub.repos["model", "org/pets"].content()
    assert there["model.safetensors"] == (other / "model.safetensors").read_bytes()
    assert "confusion.png" not in there and there["figure.png"] == b"the author's own"


def test_pull_request_and_branch(hub, run, tmp_path):
    hub.add("model", "org/pets", {"config.json": b"{}"})
    before = listing(run)
    done = push(run, "org/pets", create_pr=True)
    repo = hub.repos["model", "org/pets"]
    assert repo.content() == {"config.json": b"{}"} and set(repo.content("refs/pr/1")) == SHARED
    assert done.pull_request == f"{hub.url}/org/pets/discussions/1" and listing(run) == before
    push(run, "org/pets", revision="half")
    assert repo.content() == {"config.json": b"{}"} and set(repo.content("half")) == SHARED
    with pytest.raises(UserError, match="against main, and there is a revision 'half'"):
        push(run, "org/pets", create_pr=True, revision="half")


def test_the_same_push_opens_one_pull_request(hub, run):
    """Of a model and of a split; where it was closed, another."""
    split = Split("photos", ["cat", "dog"], {"a.png": "cat", "b.png": "dog"})
    for type, work in {
        "model": lambda: push(run, "org/pets", create_pr=True),
        "dataset": lambda: push_split(split, "org/pets", create_pr=True),
    }.items():
        first = work()
        repo = hub.repos[type, "org/pets"]
        assert work() == first and first.commit == repo.refs["refs/pr/1"] and "refs/pr/2" not in repo.refs
        repo.closed.add("refs/pr/1")
        assert work().pull_request.endswith("/org/pets/discussions/2")


def test_private(hub, run):
    push(run, "org/secret", private=True)
    assert hub.repos["model", "org/secret"].private
    with pytest.raises(Exception, match="Repository Not Found"):
        HfApi(token="hf_other").model_info("org/secret")
    hub.add("model", "org/open", {"config.json": b"{}"})
    with pytest.raises(PushError, match="A private repository was asked for, and org/open is public"):
        push(run, "org/open", private=True)
    assert hub.repos["model", "org/open"].content() == {"config.json": b"{}"}


@pytest.mark.parametrize(
    "token, words",
    [
        ("hf_" + "x" * 30, "no valid access token"),
        ("hf_read", "This token may not write to org/pets"),
        ("hf_other", "This token may not write to org/pets"),
    ],
    ids=["unknown", "reader", "stranger"],
)
def test_wrong_token(hub, run, token, words, caplog, capsys, monkeypatch):
    before = listing(run)
    with caplog.at_level(logging.DEBUG), pytest.raises(PushError) as error:
        push(run, "org/pets", token=token)
    text = str(error.value)
    assert words in text and f"Nothing is lost: the run is whole in {run}" in text
    assert f"hf-lowlabel push {run} org/pets" in text
    said = text + caplog.text + "".join(capsys.readouterr()) + repr(error.value.__context__)
    assert token not in said and "Bearer" not in said
    assert not hub.repos and listing(run) == before
    assert [r for r in hub.requests if "/commit/" in r[1] or "/lfs/" in r[1]] == []


def test_gated_repository_takes_a_push_of_its_owner_only(hub, run):
    hub.add("model", "org/gated", {"config.json": b"{}"})
    hub.repos["model", "org/gated"].gated = True
    with pytest.raises(PushError, match="may not write to org/gated"):
        push(run, "org/gated", token="hf_other")
    push(run, "org/gated")
    assert set(hub.repos["model", "org/gated"].content()) == SHARED


def test_access_is_checked_before_training(hub, caplog, monkeypatch):
    check_access("org/pets")
    for token, words in {"hf_read": "may only read", "hf_" + "x" * 30: "no valid access token"}.items():
        with pytest.raises(PushError, match=words):
            check_access("org/pets", token)
    with pytest.raises(UserError, match="Give org/name"):
        check_access("pets")
    hub.fault("whoami", 503)
    with caplog.at_level(logging.WARNING, "hf_lowlabel"):
        check_access("org/pets")
    assert "training continues" in caplog.text
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(PushError, match="There is no access token"):
        check_access("org/pets")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "old.ckpt"])
def test_a_pickle_is_refused(hub, run, name):
    (run / name).write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=f"pickled files.*{name}"):
        push(run, "org/pets")
    assert not hub.requests


def test_what_is_not_a_whole_model_is_refused(hub, run, tmp_path):
    weights = (run / "model.safetensors").read_bytes()
    for content, words in {
        weights[:-4]: "model.safetensors (in .* is damaged|has changed)",
        b"\x80\x04.": "model.safetensors (in .* is damaged|has changed)",
    }.items():
        (run / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=words):
            push(run, "org/pets")
    (run / "model.safetensors").write_bytes(weights)
    (run / "metrics.json").write_text('{"accuracy": ')
    with pytest.raises(UserError, match="metrics.json (is not JSON|has changed)"):
        push(run, "org/pets")
    (run / "metrics.json").unlink()
    (tmp_path / "passwords").write_text("secret")
    (run / "metrics.json").symlink_to(tmp_path / "passwords")
    with pytest.raises(UserError, match="metrics.json is no plain file"):
        push(run, "org/pets")
    (run / "metrics.json").unlink()
    for name in ("README.md", "config.json"):
        (run / name).rename(tmp_path / name)
        with pytest.raises(UserError, match=f"There is no {name}"):
            push(run, "org/pets")
        (tmp_path / name).rename(run / name)
    with pytest.raises(UserError, match="There is no folder"):
        push(tmp_path / "nothing", "org/pets")
    with pytest.raises(UserError, match="Give org/name"):
        push(run, "a/b/c")
    assert not hub.requests


def test_all_code_of_a_model_travels_and_what_the_last_one_had_goes(hub, run, tmp_path):
    """What the configuration names, alone or in a list, what that imports, and so on; in a circle too."""
    code = {
        "model.py": "from .parts import A\n",
        "tokens.py": "",
        "parts.py": "try:\n    from .deep import B\nexcept ImportError:\n    pass\n",
        "deep.py": "from .model import C\nfrom .gone import D\n",
    }
    for name, text in {**code, "mine.py": "from .notes import N\n", "notes.py": ""}.items():
        (run / name).write_text(text)
    config = json.loads((run / "config.json").read_text())
    named = {"AutoModel": "model.Net", "AutoTokenizer": ["tokens.Slow", None], "AutoConfig": None}
    (run / "config.json").write_text(json.dumps({**config, "auto_map": named}))
    push(run, "org/pets")
    assert set(hub.repos["model", "org/pets"].content()) == SHARED | set(code)
    hub.add("model", "org/pets", {"author.py": b"from .model import Net\n"})
    push(make_run(tmp_path / "other", 2.0), "org/pets")
    assert set(hub.repos["model", "org/pets"].content()) == SHARED | {"author.py"}


@pytest.mark.parametrize("config", [b"[]", b"{", b'{"auto_map": ["a.B"]}', b'{"auto_map": {"AutoModel": 3}}'])
def test_a_configuration_on_the_hub_that_says_nothing_of_code(hub, run, config):
    hub.add("model", "org/pets", {"config.json": config, "author.py": b"\xff"})
    push(run, "org/pets")
    assert set(hub.repos["model", "org/pets"].content()) == SHARED | {"author.py"}


def test_a_run_that_goes_on_is_refused(hub, run):
    from hf_lowlabel.training.folder import claim, release

    claim(run, resume=True)
    with pytest.raises(UserError, match="trains in"):
        push(run, "org/pets")
    release(run)
    push(run, "org/pets")


def test_no_path_travels_from_another_working_directory(hub, tmp_path, monkeypatch):
    """Where a run is pushed, `clinic/patients` is no folder, and looks like the name of a data set."""
    for name in ("clinic/smith_patients", "ward/jones_scans"):
        (tmp_path / "there" / name).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    given = dict(dataset="clinic/smith_patients", prompts=["ward/jones_scans"], model="org/known", learning_rate=1.0)
    run = make_run(tmp_path / "run", hyperparameters=given)
    (run / "training.yaml").write_text(yaml.safe_dump(given))
    monkeypatch.chdir(tmp_path / "elsewhere")
    push(run, "org/pets")
    there = hub.repos["model", "org/pets"].content()
    assert not any(word in content for content in there.values() for word in (b"clinic", b"ward/"))
    known = {"model": "org/known", "learning_rate": 1.0}
    said = {"dataset": "path/to/smith_patients", "prompts": ["path/to/jones_scans"], **known}
    assert yaml.safe_load(there["training.yaml"]) == said


def test_an_edited_card_keeps_its_words(hub, run):
    card = (run / "README.md").read_text()
    (run / "README.md").write_text(card.replace("\n## Limits", "\nAsk me anything.\n\n## Limits"))
    push(run, "org/pets")
    there = hub.repos["model", "org/pets"].content()["README.md"].decode()
    assert "Ask me anything." in there and 'model="org/pets"' in there and 'from_pretrained("org/pets")' in there


def test_names_in_the_section_use_only():
    card = (
        '---\nx: y\n---\n# a\n\n## Use\n\nmodel = A.from_pretrained("a", x=1)\nt("local-dir:a") s("tu-local-dir:a")\n'
        "hf-lowlabel finetune --model a --dataset D\n\n## How\n\nhf-lowlabel finetune --model a\n"
    )
    new = renamed(card, "o/b")
    assert new == (
        '---\nx: y\n---\n# a\n\n## Use\n\nmodel = A.from_pretrained("o/b", x=1)\nt("hf-hub:o/b") s("tu-hf-hub:o/b")\n'
        "hf-lowlabel finetune --model o/b --dataset D\n\n## How\n\nhf-lowlabel finetune --model a\n"
    )

"""Manifests and priors on the Hub: pushed, pinned, read back, refused when another would take a name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from hf_lowlabel.data.splits.published import parse
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.hub.splits import default_name, push_split
from hf_lowlabel.hub.upload import PushError


def split(seed=0, **changes):
    given = dict(
        dataset="org/pets",
        class_names=["cat", "dög"],
        labeled={"b.png": "dög", "a.png": "cat"},
        seed=seed,
        fingerprint="f" * 64,
        revision="1" * 40,
        validation=["c.png"],
        test=["d.png", "e.png"],
    )
    return Split(**{**given, **changes})


def test_round_trip_pinned_to_a_revision(hub, tmp_path):
    first = push_split(split(), "org/splits", name="pets-2")
    hub.repos["dataset", "org/splits"].tags["v1"] = first.commit
    second = push_split(split(seed=1), "org/splits")
    assert Split.load("hub:org/splits/pets-2") == split() and Split.load("hub:org/splits/pets-2").hash == split().hash
    assert Split.load("hub:org/splits@v1") == split()  # the only one there was
    assert Split.load(f"hub:org/splits/pets-2-seed1@{second.commit}").seed == 1
    words = r"2 configurations in org/splits: pets-2, pets-2-seed1\. Name one, as in hub:org/splits/pets-2\."
    with pytest.raises(UserError, match=words):
        Split.load("hub:org/splits")
    with pytest.raises(UserError, match="did you mean 'pets-2'"):
        Split.load("hub:org/splits/pets-3@v1")
    with pytest.raises(UserError, match="no such revision"):
        Split.load("hub:org/splits/pets-2@v2")
    with pytest.raises(UserError, match="no data set or model hub:org/nothing/x on the Hub"):
        Split.load("hub:org/nothing/x")
    there = hub.repos["dataset", "org/splits"].content()
    assert [json.loads(line) for line in there["pets-2/labeled.jsonl"].splitlines()] == [
        {"id": "b.png", "label": "dög"},
        {"id": "a.png", "label": "cat"},
    ]
    configs = yaml.safe_load(there["README.md"].decode().split("---")[1])["configs"]
    assert [c["config_name"] for c in configs] == ["pets-2", "pets-2-seed1"]
    assert [f["split"] for f in configs[0]["data_files"]] == ["labeled", "validation", "test"]
    assert all(f["path"] in there for c in configs for f in c["data_files"])


def test_a_model_brings_its_own_split(hub):
    hub.add("model", "org/classifier", {"split.json": split().text().encode()})
    assert Split.load("hub:org/classifier") == split()
    hub.add("model", "org/other", {"config.json": b"{}"})
    with pytest.raises(UserError, match="no split.json in hub:org/other"):
        Split.load("hub:org/other")


def test_a_name_is_not_given_to_another_manifest(hub):
    push_split(split(), "org/splits", name="pets")
    again = push_split(split(), "org/splits", name="pets")
    with pytest.raises(UserError, match="another manifest called 'pets'.*--name"):
        push_split(split(seed=5), "org/splits", name="pets")
    assert (
        len(hub.repos["dataset", "org/splits"].history()) == 2
        and again.commit == hub.repos["dataset", "org/splits"].refs["main"]
    )


def test_the_page_of_the_repository_keeps_its_words(hub):
    page = b"---\nlicense: mit\nconfigs:\n- config_name: old\n  data_files: old.csv\n---\n# Ours\n\nWords.\n"
    hub.add("dataset", "org/splits", {"README.md": page})
    push_split(split(), "org/splits", name="pets")
    _, head, text = hub.repos["dataset", "org/splits"].content()["README.md"].decode().split("---", 2)
    values = yaml.safe_load(head)
    assert text.strip() == "# Ours\n\nWords." and values["license"] == "mit"
    assert [c["config_name"] for c in values["configs"]] == ["old", "pets"]


@pytest.mark.parametrize("data", ["train.csv", "data/train-00000.parquet", "cats/1.JPG", "images.tar.gz"])
def test_a_data_set_is_not_hidden_by_the_first_configuration(hub, data):
    """load_dataset finds its files by itself until a configuration is named, and then opens that alone."""
    there = {"README.md": b"---\nlicense: mit\n---\n# Pets\n", data: b"x", "LICENSE.txt": b"MIT"}
    hub.add("dataset", "org/pets", there)
    with pytest.raises(UserError, match=f"a data set of its own \\({data}\\).* such as org/pets-splits"):
        push_split(split(), "org/pets", name="forty")
    assert hub.repos["dataset", "org/pets"].content() == there


def test_one_configuration_of_others_stays_what_is_opened_without_a_name(hub, tmp_path):
    from datasets import load_dataset_builder

    page = b"---\nconfigs:\n- config_name: all\n  data_files: train.csv\n---\n"
    hub.add("dataset", "org/pets", {"README.md": page, "train.csv": b"a,b\n1,2\n"})
    push_split(split(), "org/pets", name="forty")
    push_split(split(seed=1), "org/pets", name="more")
    for path, content in hub.repos["dataset", "org/pets"].content().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    opened = [load_dataset_builder(str(tmp_path), *name).config.name for name in ([], ["forty"], ["more"])]
    assert opened == ["all", "forty", "more"]
    with pytest.raises(UserError, match="configuration 'all' of its own, which is no manifest.*--name"):
        push_split(split(), "org/pets", name="all")


@pytest.mark.parametrize(
    "head, words",
    [
        (b"configs:\n- data_files: a.csv", "each have a `config_name`"),
        (b"configs:\n- all", "each have a `config_name`"),
        (b"configs: all", "each have a `config_name`"),
        (b"configs:\n- config_name: 3", "each have a `config_name`"),
        (b"license: [mit", "cannot be read"),
        (b"- a list", "cannot be read"),
        (b"license: \xff", "cannot be read"),
    ],
)
def test_a_page_of_others_that_cannot_be_read(hub, head, words):
    page = b"---\n" + head + b"\n---\n# Pets\n"
    hub.add("dataset", "org/broken", {"README.md": page})
    with pytest.raises(UserError, match=f"README.md in org/broken.*{words}.*Mend (it|them) there"):
        push_split(split(), "org/broken", name="forty")
    assert hub.repos["dataset", "org/broken"].content() == {"README.md": page}


def test_two_push_at_once_and_both_are_there(hub):
    def interfere(method, path):
        if "/commit/" in path:
            hub.before = lambda method, path: None
            push_split(split(seed=7), "org/splits", name="theirs")

    push_split(split(), "org/splits", name="first")
    hub.before = interfere
    push_split(split(seed=6), "org/splits", name="ours")
    assert [Split.load(f"hub:org/splits/{n}").seed for n in ("first", "theirs", "ours")] == [0, 7, 6]
    configs = yaml.safe_load(hub.repos["dataset", "org/splits"].content()["README.md"].decode().split("---")[1])[
        "configs"
    ]
    assert [c["config_name"] for c in configs] == ["first", "ours", "theirs"]


def test_priors(hub, tmp_path):
    from hf_lowlabel.training.priors import load_priors, save_priors

    priors = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32)
    save_priors(tmp_path / "p.safetensors", priors, ["a.png", "b.png", "c.png"], ["cat", "dög"])
    push_split(split(), "org/splits", name="pets", priors=tmp_path / "p.safetensors")
    found = load_priors("hub:org/splits/pets", ["c.png", "a.png"], ["dög", "cat"])
    assert found.tolist() == [[0.5, 0.5], [pytest.approx(0.1), pytest.approx(0.9)]]
    save_priors(tmp_path / "q.safetensors", priors, ["a.png", "b.png", "c.png"], ["cat", "owl"])
    with pytest.raises(UserError, match="cat, owl.*not those of the split"):
        push_split(split(), "org/splits", name="more", priors=tmp_path / "q.safetensors")
    (tmp_path / "r.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="no prior pseudo-labels"):
        push_split(split(), "org/splits", name="more", priors=tmp_path / "r.safetensors")


def test_published_priors_are_not_replaced(hub, tmp_path):
    from hf_lowlabel.training.priors import load_priors, save_priors

    one, other = np.array([[0.9, 0.1]], np.float32), np.array([[0.4, 0.6]], np.float32)
    save_priors(tmp_path / "one.safetensors", one, ["a.png"], ["cat", "dög"])
    save_priors(tmp_path / "other.safetensors", other, ["a.png"], ["cat", "dög"])
    push_split(split(), "org/splits", name="pets")
    push_split(split(), "org/splits", name="pets", priors=tmp_path / "one.safetensors")  # they may come later
    done = push_split(split(), "org/splits", name="pets", priors=tmp_path / "one.safetensors")
    with pytest.raises(UserError, match="other prior pseudo-labels for a manifest called 'pets'.*--name"):
        push_split(split(), "org/splits", name="pets", priors=tmp_path / "other.safetensors")
    assert push_split(split(), "org/splits", name="pets").commit == done.commit  # without them they stay
    assert load_priors("hub:org/splits/pets", ["a.png"], ["cat", "dög"]).tolist() == one.tolist()
    assert len(hub.repos["dataset", "org/splits"].history()) == 3


@pytest.mark.parametrize(
    "text", ["hub:pets", "hub:org/pets/a/b", "hub:../x/y", "hub:org/..", "hub:org/pets@", "hub:org/pets/a b"]
)
def test_bad_references(text):
    with pytest.raises(UserError, match="is neither hub:org/name nor"):
        parse(text)


def test_references():
    assert parse("hub:org/pets") == ("org/pets", None, None)
    assert parse("hub:org/pets/pets-40@refs/pr/3") == ("org/pets", "pets-40", "refs/pr/3")
    assert (
        default_name(split()) == "pets-2-seed0" and default_name(split(dataset="my photos", seed=None)) == "my-photos-2"
    )


def test_wrong_token(hub):
    with pytest.raises(PushError, match="may not write"):
        push_split(split(), "org/splits", token="hf_read")

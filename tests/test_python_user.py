"""What somebody in Python has in hand, from one step to the next: chosen ids, a Split, a launch, plain mistakes."""

from __future__ import annotations

import shutil

import datasets
import numpy as np
import pytest
import torch

from hf_lowlabel import (
    Callback,
    FinetuneObjective,
    PretrainObjective,
    Split,
    UserError,
    auto,
    evaluate,
    finetune,
    load_source,
    make_split,
    pretrain,
    priors,
    push,
    report,
    select,
)
from hf_lowlabel.once_per_step import OncePerStep
from hf_lowlabel.records import RunRecord
from hf_lowlabel.training import preparing
from hf_lowlabel.yaml_files import read_settings
from tests.test_open_api import FINETUNE, PRETRAIN, equal, table

TRAINS = ("max_steps", "batch_size", "unlabeled_ratio")  # nothing to a probe
ASK = {k: v for k, v in FINETUNE.items() if k not in ("num_labels", "model", "from_scratch")}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone") / "run"
    return pretrain(
        table(24), split=make_split(load_source(table(24)), 6, test_fraction=0.25), output_dir=folder, **PRETRAIN
    )


def test_from_select_to_a_model(backbone, tmp_path):
    assert RunRecord.from_json(backbone.folder / "run.json").data.images == 18  # those of the split are held out
    data, how = table(24), dict(device="cpu")
    source = load_source(data)
    begun = make_split(source, 3, class_balanced=True, test_fraction=0.25)
    chosen = select(backbone, data, budget=6, split=begun, output=tmp_path / "to_label", **how)
    split = make_split(source, labeled=[*begun.labeled, *chosen.ids], test_fraction=0.25)
    assert {*split.labeled} == {*begun.labeled, *chosen.ids} and split.test == begun.test and len(chosen.ids) == 6
    priors(backbone, data, split=split, output=tmp_path / "priors.safetensors", finetune=False, **how)
    split.save(tmp_path / "split.json")
    ask = dict(ASK, model=backbone, prior=tmp_path / "priors.safetensors", method="fixmatch")
    one = finetune(data, split=split, output_dir=tmp_path / "one", **ask)
    two = finetune(data, split=tmp_path / "split.json", output_dir=tmp_path / "two", **ask)
    assert equal(one, two) and Split.load(one.folder / "split.json") == split
    again = finetune(data, split=split, output_dir=one.folder, resume=True, **ask)
    assert again.metrics == one.metrics
    with pytest.raises(UserError, match="is a run of another split .*. Resume it with that"):
        finetune(data, split=begun, output_dir=one.folder, resume=True, **ask)
    assert Split.load(one.folder / "split.json") == split == Split.load(one.folder / "split_given.json")
    assert evaluate(one, data, split=split)["images"] == len(split.test)
    best = auto(
        data, backbone, split=split, train=False, to_label=0, image_size=16, output_dir=tmp_path / "best", **how
    )
    assert Split.load(best.folder / "split.json").labeled == split.labeled


def test_bad_input_leaves_nothing_of_a_split(tmp_path):
    split = make_split(load_source(table(24)), 6)
    with pytest.raises(UserError, match="differs from"):
        finetune(table(24, seed=5), split=split, output_dir=tmp_path / "run", **{**FINETUNE, "num_labels": None})
    assert not (tmp_path / "run").exists()
    dry = finetune(
        table(24), split=split, output_dir=tmp_path / "run", dry_run=True, **{**FINETUNE, "num_labels": None}
    )
    assert dry.progress.steps == 2 and not (tmp_path / "run").exists()


def test_chosen_ids_are_labeled_and_never_held_out():
    source = load_source("digits")
    ids = source.ids[:400:4]
    split = make_split(source, labeled=iter(ids), seed=3, validation=50, test_fraction=0.2)
    drawn = make_split(source, 40, seed=3, validation=50, test_fraction=0.2)
    assert [*split.labeled] == ids and all(
        source.class_names[source.labels[i]] == split.labeled[source.ids[i]] for i in range(0, 400, 4)
    )
    assert {*drawn.test} - {*ids} < {*split.test} and {*split.test}.isdisjoint(ids)  # others in the place of those
    assert {*split.validation}.isdisjoint([*ids, *split.test])
    assert len(split.test) == len(drawn.test) and len(split.validation) == len(drawn.validation) == 50
    shapes = load_source([(np.full((8, 8, 3), i, np.uint8), "ab"[i % 2] if i else None) for i in range(8)])
    for given, words in (
        (dict(labeled=["0"]), "The image '0' of 'memory' has no label"),
        (dict(labeled=["99"]), "There is no image '99' in 'memory'; ids there are such as"),
        (dict(labeled="1"), "labeled is '1'. Give a list of ids"),
        (dict(labeled=[]), r"labeled is \[\]. Give a list of ids"),
        (dict(labeled=[1]), r"labeled is \[1\]. Give a list of ids"),
        (dict(labeled=7), "labeled is 7. Give a list of ids"),
        (dict(labeled=["1"], num_labels=2), "Leave one of them out"),
        (dict(num_labels=4.5), "num_labels is 4.5, which is no whole number. Give 1 or more"),
        (dict(num_labels=True), "num_labels is True, which is no number"),
        (dict(seed=1.5), "seed is 1.5, which is no whole number"),
        (dict(validation=0.5), "validation is 0.5, which is no whole number"),
        (dict(test_fraction="a"), "A test fraction of 'a' is not in"),
    ):
        with pytest.raises(UserError, match=words):
            make_split(shapes, **given)


# ---- evaluation -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["test", "validation"])
def test_a_run_is_evaluated_on_test_data_alone(tmp_path, name):
    done = finetune(table(24), method="supervised", output_dir=tmp_path / "run", **FINETUNE)
    assert "top5" not in repr(done) and "accuracy" in repr(done)
    assert evaluate(done, datasets.DatasetDict({name: table(9, 1)}))["images"] == 9


# ---- mistakes -------------------------------------------------------------------------------------------------------
class Listed(FinetuneObjective):
    unlabeled_views = ["weak"]

    def forward(self, batch, t):
        raise AssertionError


class Named(PretrainObjective):
    views = "byol1"
    forward = Listed.forward


def test_plain_mistakes_are_sentences(tmp_path):
    x, out = np.zeros((6, 8, 8, 3), np.uint8), tmp_path / "out"
    for call, words in (
        (
            lambda: finetune(table(24), output_dir=out, **FINETUNE, callbacks=Callback()),
            "callbacks is a Callback. Give a list",
        ),
        (
            lambda: finetune(table(24), output_dir=out, **FINETUNE, method=Listed),
            r"The unlabeled_views of Listed is \['weak'\]. Give a dict",
        ),
        (
            lambda: pretrain(table(24), output_dir=out, **{**PRETRAIN, "method": Named, "method_args": {}}),
            "The views of Named is 'byol1'. Give names",
        ),
        (
            lambda: finetune((x, np.arange(6)), output_dir=out, **FINETUNE),
            "Images and labels are given apart, .* Give pairs",
        ),
        (lambda: finetune([(x[0].transpose(2, 0, 1), "a")], output_dir=out, **FINETUNE), "x.transpose"),
        (lambda: finetune(table(24), output_dir=out, **{**FINETUNE, "split": 3}), "split is 3 .int.. It must be text"),
        (
            lambda: priors("cnn6_16", table(24), split=3, output=out),
            "split is 3. Give a Split, or the path of a manifest",
        ),
        (lambda: priors("cnn6_16", table(24), clusters=4, output=out), "clusters is 4. Give a list of whole numbers"),
        (lambda: select(None, table(24), budget=3, output=out), "model is None. Give a timm name, a Hub id"),
        (lambda: push(None, "org/name"), "folder is None. Give a run folder or a finished run"),
        (lambda: report([None], out), "folders is None. Give a run folder or a finished run"),
    ):
        with pytest.raises(UserError, match=words):
            call()
        assert not out.exists()


class Memory(OncePerStep):
    def __init__(self):
        super().__init__()
        self.register_buffer("bank", torch.zeros(4, 2))
        self.register_buffer("at", torch.zeros((), dtype=torch.int64))


def test_what_later_is_given_has_the_shape_of_its_buffer():
    memory = Memory()
    for given, words in (
        (
            dict(at=1, bank=torch.ones(3, 2)),
            r"Memory gave later bank=a Tensor of shape \(3, 2\), and its bank is a buffer of shape \(4, 2\)",
        ),
        (dict(bank=torch.ones(1, 2)), "of shape"),  # which would be repeated without a word
        (dict(bank=1.0), "later bank=1.0"),
        (dict(other=torch.ones(3)), "its other is no buffer"),
    ):
        memory.later(**given)
        with pytest.raises(UserError, match=words):
            memory.end_step()
        assert memory.at == 0 and not memory.bank.any()
    memory.later(at=3, bank=torch.ones(4, 2))
    memory.end_step()
    assert memory.at == 3 and memory.bank.all()


def test_a_run_of_a_split_in_memory_goes_on_wherever_it_lies(tmp_path):
    data, ask = table(24), {**FINETUNE, "num_labels": None, "method": "supervised"}
    split = make_split(load_source(data), 6, test_fraction=0.25)
    one = finetune(data, split=split, output_dir=tmp_path / "one", **ask)
    assert "\nsplit: split_given.json\n" in (one.folder / "training.yaml").read_text()
    moved, again = tmp_path / "moved", dict(dataset=data, resume=True, **ask)
    shutil.move(one.folder, moved)
    split.save(tmp_path / "own.json")
    for given in (split, moved / "split_given.json", tmp_path / "own.json"):
        assert finetune(split=given, output_dir=moved, **again).metrics == one.metrics
    other = make_split(load_source(data), 6, test_fraction=0.25, seed=1)
    other.save(tmp_path / "other.json")
    with pytest.raises(UserError, match="is a run of another split"):
        finetune(split=tmp_path / "other.json", output_dir=moved, **again)
    assert Split.load(moved / "split_given.json") == split
    taken = finetune(data, split=moved / "split_given.json", output_dir=tmp_path / "taken", **ask)
    assert Split.load(taken.folder / "split_given.json") == split and taken.metrics == one.metrics
    assert read_settings(moved / "training.yaml")["split"] == str(moved / "split_given.json")
    probe = {k: v for k, v in ask.items() if k not in TRAINS} | {
        "method": "probe"
    }  # which leaves no checkpoint to compare with
    two = finetune(data, split=split, output_dir=tmp_path / "two", **probe)
    shutil.copytree(two.folder, tmp_path / "copy")
    assert finetune(data, split=split, output_dir=tmp_path / "copy", resume=True, **probe).metrics == two.metrics


def test_a_split_in_memory_leaves_nothing_where_no_run_began(tmp_path, monkeypatch):
    data, ask = table(24), {k: v for k, v in FINETUNE.items() if k not in ("num_labels", *TRAINS)} | {"method": "probe"}
    split = make_split(load_source(data), 6, test_fraction=0.25)
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "network_of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune(data, split=split, output_dir=tmp_path / "run", **ask)
    assert not (tmp_path / "run").exists()
    finetune(data, output_dir=tmp_path / "run", **{**ask, "num_labels": 6})
    before = {p.name for p in (tmp_path / "run").iterdir()}
    with pytest.raises(UserError, match="split was None"):
        finetune(data, split=split, output_dir=tmp_path / "run", resume=True, **ask)
    assert {p.name for p in (tmp_path / "run").iterdir()} == before

"""What a search leaves out and judges: masks that are ignored everywhere, objects that vanish in small images, attempts
that diverge, and what is said of all that."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import auto
from hf_lowlabel.api.running import settled
from hf_lowlabel.errors import Diverged, UserError
from hf_lowlabel.ladder import advice_files, encoder_choice, image_side, on_training, search_state
from hf_lowlabel.ladder.advice import Remark
from hf_lowlabel.ladder.search_state import OtherSearch, check_same, facts_of
from hf_lowlabel.ladder.trained import Trials
from hf_lowlabel.tasks import get_task
from hf_lowlabel.tasks.data_classes import Attempt, LeftOut
from hf_lowlabel.training.cross_validated import tell_left_out
from hf_lowlabel.training.preparing import prepare

from .test_trained import FLOOR, MASKS, ONE, PLAIN, network, short, shorten, trial  # noqa: F401  (fixtures)

GIVEN = {**MASKS, "num_labels": None, "to_label": 0, "test_fraction": 0.0}
FROZEN = Attempt("head", {}, unlabeled=False, frozen=True)


def write(folder, masks):
    """Images that show what their masks do."""
    rng = np.random.default_rng(0)
    for i, mask in enumerate(masks):
        pixels = rng.integers(0, 120, (*mask.shape, 3)) + 100 * (mask == 1)[..., None]
        for kind, image in (("images", pixels), ("masks", mask)):
            path = folder / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint8)).save(path)
    return folder


def squares(count, side=32, at=4, wide=12):
    masks = np.zeros((count, side, side), np.uint8)
    for i, mask in enumerate(masks):
        mask[at + i : at + i + wide, at : at + wide] = 1
    return list(masks)


IGNORED = np.full((32, 32), 255, np.uint8)


# ---- masks that are ignored everywhere -------------------------------------------------------------------------------
@pytest.mark.parametrize("train", [False, True])
def test_masks_that_are_ignored_everywhere_are_not_judged(network, tmp_path, short, train):  # noqa: F811
    data = write(tmp_path / "data", [IGNORED, *squares(4), IGNORED])
    best = auto(data, network, output_dir=tmp_path / "run", train=train, **GIVEN)
    assert all(len(one.tallies) == 4 and one.tallies.sum((1, 2)).all() for one in best.ladder)
    assert re.search("with [12] in [23] of them.* over 4 masks[ .]", best.advice.sentences[0]) and best.advice.accuracy
    said = "2 of the 6 masks, such as that of 0.png, are ignored at every pixel"
    assert sum(line.startswith(said) for line in best.advice.sentences) == 1


def test_one_mask_beside_such_is_too_few(network, tmp_path, short):  # noqa: F811
    data = write(tmp_path / "data", [*squares(1), IGNORED])
    words = r"1 of the 2 masks, that of 1.png, is ignored .* There is one other image with masks, .* needs at least two"
    with pytest.raises(UserError, match=words):
        auto(data, network, output_dir=tmp_path / "run", train=False, **GIVEN)


def test_an_image_without_any_class_is_judged_where_classes_are_ticked():
    shows = np.array([[1, 0], [0, 0]], bool)
    assert get_task("multilabel").judgeable(shows).all() and get_task("segmentation").judgeable(shows).sum() == 1


# ---- objects that vanish ---------------------------------------------------------------------------------------------
def prepared(data, network, folder, **more):  # noqa: F811
    given = dict(task="segmentation", dataset=str(data), model=str(network), test_fraction=0.0, max_steps=1)
    given |= dict(architecture="unet", batch_size=2, method="supervised", callbacks=())
    ready = prepare(get_task("segmentation"), settled("finetune", given | more), folder)
    return ready, lambda settings: {PLAIN: settled("finetune", {**given, **settings})}


@pytest.mark.parametrize("tiny", [3, 1], ids=["all vanish", "one vanishes"])
def test_a_side_at_which_objects_vanish_is_not_taken(network, tmp_path, monkeypatch, tiny):  # noqa: F811
    masks = squares(3, side=400, at=40, wide=120)
    for mask in masks[:tiny]:
        mask[:] = 0
        mask[3:5, 3:5] = 1
    ready, configs = prepared(write(tmp_path / "data", masks), network, tmp_path / "run")
    monkeypatch.setattr(image_side.Trials, "seconds", lambda self, attempt, most: 1e6)  # no side fits
    sides = ready.task.sides(ready.dataset)
    assert len(sides) > 2
    side = image_side.measured(ready, sides, {}, configs, seconds=1)
    assert side["image_size"] > sides[-1]["image_size"]
    found = ready if side["stored_size"] is None else image_side.rebuilt(ready, **side)
    assert (ready.task.shows(found.labeled, ready.names).sum(1) == 2).all()


def test_an_object_of_several_may_vanish(network, tmp_path, monkeypatch, caplog):  # noqa: F811
    masks = squares(3, side=400, at=40, wide=120)
    masks[0][300:302, 300:302] = 2
    masks[1][200:300, 200:300] = 2
    ready, configs = prepared(write(tmp_path / "data", masks), network, tmp_path / "run")
    sides = ready.task.sides(ready.dataset)
    monkeypatch.setattr(image_side.Trials, "seconds", lambda self, attempt, most: 1e6)
    caplog.clear()
    assert image_side.measured(ready, sides, {}, configs, seconds=1) == sides[-1]
    assert "weights of" not in caplog.text  # which were named when they were read
    image_side.rebuilt(ready, model=str(network))
    assert caplog.text.count("weights of") == 1


def test_where_objects_vanish_at_the_size_that_was_asked_for_it_is_said(network, tmp_path):  # noqa: F811
    data = write(tmp_path / "data", [np.pad(np.ones((2, 2), np.uint8), ((201, 197), (201, 197)))] * 3)
    with pytest.raises(UserError, match="scaled to 40 px on the longer side, hold nothing .* Give a larger size"):
        prepared(data, network, tmp_path / "run", image_size=40, stored_size=40)


# ---- no score --------------------------------------------------------------------------------------------------------
def test_encoders_without_a_score_are_not_compared(network, tmp_path, short, monkeypatch):  # noqa: F811
    masks = squares(4)
    for mask in masks[1:]:
        mask[:] = 0
    seen = []
    monkeypatch.setattr(encoder_choice.Trials, "fit", lambda self, ready, *_: seen.append(0) or ready.network.model)
    data = write(tmp_path / "data", masks)
    best = auto(data, [network, network], output_dir=tmp_path / "run", train=False, **GIVEN)
    said = next(line for line in best.advice.sentences if line.startswith("Of the encoders"))
    assert "the first, is taken: no two classes can be judged" in said and "%" not in said and seen
    assert best.advice.sentences[0].startswith("On new images: not known.") and best.advice.helps == "unclear"


def test_a_run_that_can_judge_one_class_alone_says_no_score(caplog):
    task, found = Mock(wraps=get_task("multilabel"), label_words="labels"), np.ones((9, 2, 1))
    task.tallies_left_out = lambda *_: LeftOut(found, np.arange(9))
    recorder = SimpleNamespace(labels_seen=lambda _: 0, advice=[], left_out=None)
    ready = Mock(task=task, recorder=recorder, held={}, names=["a"])
    ready.config.training.dry_run = False
    tell_left_out(ready)
    assert recorder.left_out is None and not recorder.advice


@pytest.mark.parametrize(
    "best, plain, gone, why",
    [
        (FLOOR, FROZEN, [], "not clearly more, while floor is trained for longer"),
        (FLOOR, FROZEN, ["head"], None),
        (replace(FROZEN, floor=True), PLAIN, [], "not clearly more."),
        (replace(FROZEN, floor=True), PLAIN, ["plain"], None),
    ],
)
def test_why_the_best_by_score_is_not_taken(best, plain, gone, why):
    ready = SimpleNamespace(task=get_task("segmentation"), names=["a", "b"], training=[0], at=Mock())
    ready.training = SimpleNamespace(indices=[0])
    trials = SimpleNamespace(copied=False, share=lambda plan: 2 / 3, shows=np.ones((6, 2), bool))
    tried = [trial(best, [60, 70, 80] * 2), trial(plain, [61, 71, 81] * 2)]
    out = Mock(sentences=[])
    on_training.said_score(out, ready, trials, tried, {"folds": 3, "steps": 50, "last": 100}, gone)
    assert "measured with 2 in 3 of them" in out.sentences[0]
    assert (why in out.sentences[1]) if why else "not clearly" not in out.sentences[1]
    trials.share = lambda plan: 0.3  # a film of most images
    on_training.said_score(out, ready, trials, tried, {"folds": 3, "steps": 50, "last": 100}, gone)
    assert "measured with about 30 % of them" in out.sentences[2]


# ---- what is looked at once, or not at all ---------------------------------------------------------------------------
def test_chosen_images_stand_for_those_that_were_looked_at(tmp_path, monkeypatch):
    """The others have no features: the nearest neighbours are among images that have."""
    given = {}
    monkeypatch.setattr(advice_files, "export", lambda folder, data, at, task, why, said: given.update(at=at, why=why))
    monkeypatch.setattr(advice_files, "Asked", Mock())
    monkeypatch.setattr("hf_lowlabel.selection.reasons.thumbnail", lambda *_: "")
    ready = Mock(training=SimpleNamespace(indices=10 + np.arange(50), ids=[str(10 + i) for i in range(50)]))
    ready.dataset.ids = [str(i) for i in range(60)]
    asked, x = np.array([3, 8, 20, 21, 40]), np.eye(5) + 1
    advice = Mock(next=[Remark((20,), "", None), Remark((3,), "", None)])
    advice_files.to_label_folder(ready, advice, x, asked, tmp_path / "to_label", unpainted=False)
    assert given["at"].tolist() == [30, 13] and sum(one["stands_for"] for one in given["why"]) == 5
    assert {n["id"] for one in given["why"] for n in one["neighbours"]} <= {str(10 + i) for i in asked}


def bare(tmp_path, **more):
    ready = SimpleNamespace(names=["a", "b"], labeled=SimpleNamespace(members=range(4), some=lambda rows: rows))
    ready.config, ready.task = SimpleNamespace(views=SimpleNamespace(window=None)), get_task("classification")
    trials = Trials(ready, {PLAIN: None, ONE: None}, tmp_path, **more)
    trials.folds = lambda count: [np.array([0, 1]), np.array([2, 3])]
    return trials


def test_features_are_asked_for_once(tmp_path):
    asked = Mock(return_value=np.zeros((4, 2)))
    trials = bare(tmp_path, features=asked)
    assert trials.features() is trials.features() and asked.call_count == 1


def test_what_diverged_in_a_trial_is_not_trained_again_and_leaves_no_checkpoint(tmp_path, monkeypatch):
    """Nor does one that was killed after its tallies were written."""
    plan = dict(folds=2, steps=3, last=6, attempts=["plain", "one"], later={}, diverged=[])
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    fitted = []

    def fit(self, part, callbacks=()):
        attempt, folder = part
        (folder / "checkpoints").mkdir(parents=True)
        fitted.append(folder.name)
        if attempt is ONE and folder.name.endswith("1"):
            raise Diverged("the loss was NaN")

    monkeypatch.setattr(Trials, "part", lambda self, attempt, rows, folder, **settings: (attempt, folder))
    monkeypatch.setattr(Trials, "fit", fit)
    for _ in range(2):
        trials = bare(tmp_path)
        p = np.stack([np.eye(2)[[0, 1]], np.eye(2)[[0, 1]]], 1)
        trials.ready.task = Mock(wraps=get_task("classification"), tallies=lambda *_: p, score=Mock())
        tried, found = trials.climb(1e6)
        assert [one.name for one in tried] == ["plain"] and found["diverged"] == ["one"]
        assert not list(tmp_path.glob("*/checkpoints"))
        (tmp_path / "plain-0" / "checkpoints").mkdir()
    assert fitted == ["plain-0", "plain-1", "one-0", "one-1"]


def test_a_search_goes_on_with_a_number_of_processes_that_shares_its_batches_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(search_state, "asked_of", lambda ready: {})
    monkeypatch.setattr(search_state, "weights_of", lambda ready, models: [])
    ready = Mock(task=get_task("segmentation"))
    ready.dataset.fingerprint, ready.chosen.split.hash = "f", "h"

    def facts(processes, train=True):
        monkeypatch.setattr(search_state, "world", lambda: processes)
        return facts_of(ready, [], [], train=train)

    begun = {"facts": facts(1)}
    check_same(tmp_path, begun, facts(4))
    check_same(tmp_path, begun, facts(3, train=False))  # no network has a batch
    with pytest.raises(OtherSearch, match="other batch sizes, which the number of processes has to divide"):
        check_same(tmp_path, begun, facts(3))
    with pytest.raises(OtherSearch, match="batch sizes"):
        check_same(tmp_path, {"facts": facts(3)}, facts(1))

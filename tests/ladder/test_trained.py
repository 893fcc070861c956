"""The rungs of `auto` that train: what is planned, what is taken, and the runs they leave for masks, several classes of
an image, and one."""

import json
import os
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel import auto, evaluate
from hf_lowlabel.api.running import settled
from hf_lowlabel.cli import main
from hf_lowlabel.errors import Diverged, UserError
from hf_lowlabel.evaluation import inference
from hf_lowlabel.evaluation.confusion import segmentation_metrics
from hf_lowlabel.finetuning.multilabel import MultiLabelFixMatch
from hf_lowlabel.ladder import adapted, clock, image_side, on_training, planning, trained
from hf_lowlabel.ladder.estimates import Interval
from hf_lowlabel.ladder.folds import spread_over_folds
from hf_lowlabel.ladder.image_side import at_fitting_side
from hf_lowlabel.ladder.last_run import first_that_ends
from hf_lowlabel.ladder.planning import SPENT, settle
from hf_lowlabel.ladder.report import said_overrun, why_less
from hf_lowlabel.ladder.rounds import State, read_round
from hf_lowlabel.ladder.trained import Trials
from hf_lowlabel.ladder.trials import (
    Trial,
    clearly_better,
    gain_interval,
    gain_over,
    left_of_error,
    ranked,
    score_interval,
)
from hf_lowlabel.models import create_backbone
from hf_lowlabel.records import why_kept
from hf_lowlabel.tasks import TASKS, get_task
from hf_lowlabel.tasks.data_classes import Attempt
from hf_lowlabel.tasks.multilabel import MultiLabel
from hf_lowlabel.tasks.segmentation import Segmentation
from hf_lowlabel.text import percent
from hf_lowlabel.training.preparing import prepare

from ..processes import begun
from ..quick import few_shapes
from .test_auto import photos

PLAIN, ONE, TWO = Attempt("plain", {}, unlabeled=False), Attempt("one", {}), Attempt("two", {})
FLOOR = Attempt("floor", {}, unlabeled=False, floor=True)
STEPS = 3


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("net")
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Hard to tell apart."""
    return photos(tmp_path_factory.mktemp("photos"), each=40, strength=4)


def diverges(*_):
    raise Diverged("the loss was NaN")


def shorten(patch) -> None:
    """Trials of a few steps, on two folds, with small batches of masks and scenes; a clock that looks at two."""
    for part in ("WARM", "TIMED"):
        patch.setattr(clock, part, 1)
    few_shapes(patch.setattr)
    patch.setattr(adapted, "LEAST", float("inf"))
    patch.setattr(planning, "FEWEST", STEPS)
    patch.setattr(planning, "MOST", STEPS)
    patch.setattr(trained.Trials, "choices", (2,))
    for task in (Segmentation, MultiLabel):
        few = [a if a.frozen else replace(a, settings={**a.settings, "batch_size": 2}) for a in task.attempts]
        patch.setattr(task, "attempts", tuple(few))


@pytest.fixture
def short(monkeypatch):
    shorten(monkeypatch)


# ---- what is planned -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "left, folds, steps, names",
    [
        (10**6, 3, planning.MOST, ["plain", "one", "two"]),
        (1000, 3, 125, ["plain", "one", "two"]),  # 3 * 2.5 s of the three and 1 s of the last run
        (400, 2, 66, ["plain", "one", "two"]),
        (250, 3, 71, ["plain", "one"]),  # 3 * 1 s + 0.5 s
        (40, 2, planning.FEWEST, ["plain"]),  # too short even for that, which is said
    ],
)
def test_folds_steps_and_recipes_fit_the_time(left, folds, steps, names, caplog):
    each = {PLAIN: 0.5, ONE: 0.5, TWO: 1.5}
    if left == 1000:
        steps = int(1000 / (3 * 2.5 + 1.5))
    if left == 400:
        steps = int(400 / (2 * 2.5 + 1.5))
    assert settle(each, left, labels=10)[0] == folds
    found = settle(each, left, labels=10)
    assert (found.steps, [r.name for r in found.attempts]) == (steps, names)


def test_a_search_beyond_its_time_says_so_and_whether_the_machine_was_busy():
    assert said_overrun(3, 200, 1, on_cpu=True) == said_overrun(0.1, 50, 1, on_cpu=True) == ""
    late = "The search took 11 min 0 s, with --minutes 3"
    busy = said_overrun(3, 660, 75, on_cpu=True)
    assert busy.startswith(f"{late}: it had the processor for 1 min 15 s of them") and "times said here" in busy
    slow = f"{late}. With a smaller --image-size it takes less."
    assert said_overrun(3, 660, 400, on_cpu=True) == said_overrun(3, 660, 75, on_cpu=False) == slow


def test_nothing_has_to_be_trained_above_frozen_heads():
    assert settle({ONE: 1.0}, 5, 10, needed=False).attempts == []
    assert settle({PLAIN: 1.0}, 1e6, labels=2).folds == 2


def test_the_floor_is_tried_even_where_its_last_run_can_be_no_longer_than_a_trial(caplog):
    frozen = Attempt("head", {}, unlabeled=False, frozen=True)
    each = {frozen: 0.0, FLOOR: 0.5, ONE: 1.0}
    found = settle(each, 100, 10, longer=2.0)  # two folds and a last run, 0.5 s a step
    assert found[:4] == (2, int(100 / 1.5), int(100 / 1.5), [frozen, FLOOR]) and set(found.later) == {"one"}
    said = re.search(r"one is not tried: there is no time for it. .* (\d+) more --minutes", caplog.text)
    more = int(said[1])  # of which a share is planned
    assert settle(each, 100 + SPENT * 60 * more, 10, longer=2.0).attempts == [frozen, FLOOR, ONE]
    assert found.later["one"] == more
    assert settle(each, 100 + SPENT * 60 * (more - 1), 10, longer=2.0).attempts == [frozen, FLOOR]
    assert settle(each, 200, 10, longer=2.0)[1:3] == (80, 160)
    assert settle(each, 80, 10, longer=2.0).attempts == [frozen]


def test_time_for_heads_on_frozen_features_is_set_aside(tmp_path, monkeypatch):
    frozen = Attempt("head", {}, unlabeled=False, frozen=True)
    ready = SimpleNamespace(names=["a", "b"], labeled=SimpleNamespace(members=range(9)))
    ready.config, ready.task = SimpleNamespace(views=SimpleNamespace(window=None)), get_task("classification")
    trials = Trials(ready, {frozen: None, PLAIN: None}, tmp_path)
    monkeypatch.setattr(Trials, "seconds", lambda self, attempt, most: 0.0 if attempt.frozen else 0.1)
    monkeypatch.setattr(Trials, "fit_seconds", lambda self, attempt: 20.0)
    left = SPENT * 200 - 4 * 20  # a fit for each of three folds and one on all labels
    assert trials.plan(200)["steps"] in (int(left / 0.5), int(left / 0.5) - 1)  # 3 trials and a last run twice as long


def test_looking_at_the_clock_takes_no_longer_than_it_may(monkeypatch):
    """Where one step takes minutes, five would be over the time that a search has."""
    time = SimpleNamespace(now=100.0)
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: time.now))

    def timed(most, each):
        one, state = clock.Clock(most), SimpleNamespace(step=0, stop=False)
        while not state.stop:
            state.step, time.now = state.step + 1, time.now + (each if state.step else 3 * each)  # the first is slow
            one.on_step_end(state, {})
        return state.step, one.seconds

    assert timed(float("inf"), 2.0) == (clock.WARM + clock.TIMED, 2.0)
    assert timed(5.0, 2.0) == (1, 6.0) and timed(9.0, 2.0) == (3, 2.0)
    said = []
    monkeypatch.setattr(clock, "of_first", lambda x: said.append(x) or x)
    assert timed(5.0, 2.0) == (1, 6.0)  # the first process, and one that began later and has more time left
    monkeypatch.setattr(clock, "of_first", lambda x: said.pop(0))
    assert timed(9.0, 2.0) == (1, 6.0) and not said


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 3])
def test_every_class_is_spread_over_the_folds(count, seed):
    shows = np.zeros((11, 4), bool)
    shows[:, 0] = shows[[1, 2, 6], 1] = shows[[6, 9], 2] = True  # nothing shows the last one
    folds = spread_over_folds(shows, count, seed)
    assert sorted(np.concatenate(folds)) == list(range(11)) and len(folds) == count
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    for k, most in ((1, -(-3 // count)), (2, 1)):
        assert max(shows[rows, k].sum() for rows in folds) <= most


def test_an_image_without_which_nothing_is_told_apart_is_not_left_out():
    shows = np.array([[1, 0]] * 5 + [[1, 1]], bool)
    assert sorted(np.concatenate(spread_over_folds(shows, 3, 0))) == list(range(5))
    assert spread_over_folds(np.array([[1, 0], [0, 1]], bool), 2, 0) == []
    assert [r.tolist() for r in spread_over_folds(np.array([[1, 0], [1, 1]], bool), 2, 0)] == [[0]]


# ---- what is taken ---------------------------------------------------------------------------------------------------
def trial(attempt, hits, pixels=100):
    """Confusion matrices of two classes, of every image `hits` pixels right of each class."""
    m = np.zeros((len(hits), 2, 2))
    m[:, 0, 0] = m[:, 1, 1] = hits
    m[:, 0, 1] = m[:, 1, 0] = pixels - np.asarray(hits)
    return Trial(attempt, m, get_task("segmentation").total(m, ["a", "b"]))


def test_what_the_answer_is_not_to_fall_below_is_left_only_for_what_is_clearly_better():
    """Whatever has the better score by chance: a run that is trained has all labels and more steps the last time."""
    task, names = get_task("segmentation"), ["a", "b"]
    rng = np.random.default_rng(0)
    base = rng.integers(50, 90, 12)
    frozen, floor = Attempt("head", {}, unlabeled=False, frozen=True), trial(FLOOR, base)
    chance = base + np.where(np.arange(12) == 3, 12, -rng.integers(0, 2, 12))
    lucky, better = trial(frozen, chance), trial(frozen, base + 5)
    assert lucky.score > floor.score
    some = trial(frozen, base + np.random.default_rng(11).integers(-4, 8, 12))  # about a standard error better
    gain = gain_over(task, some, floor, names)
    assert 0.5 * gain.sd < gain.value < 1.28 * gain.sd
    assert ranked(task, [some, floor], names)[0].attempt is FLOOR
    assert ranked(task, [trial(ONE, base), trial(frozen, base - 9)], names)[0].attempt is ONE
    assert ranked(task, [trial(TWO, some.tallies[:, 0, 0]), floor], names)[0].attempt is TWO  # trained as long
    assert [t.attempt for t in ranked(task, [lucky, floor], names)] == [FLOOR, frozen]
    assert ranked(task, [better, floor], names)[0].attempt is frozen
    assert ranked(task, [lucky, floor, trial(ONE, base + 3)], names)[0].attempt is ONE
    assert ranked(task, [better, floor, trial(ONE, base + 3)], names)[0].attempt is frozen
    assert ranked(task, [lucky, trial(ONE, base - 5)], names)[0].attempt is frozen  # there was no time for the floor
    rows = [dict(name=t.name, by_labels=t.score, kept=t is floor, floor=t.attempt.floor) for t in (floor, lucky)]
    assert "it is the baseline, and no other row is clearly better" in why_kept(rows)
    for kind in ("segmentation", "multilabel"):
        assert [a.unlabeled for a in get_task(kind).attempts if a.floor] == [False], kind


def test_what_trials_lack_is_counted_in():
    """A last run has the labels that a trial left out, and a network trains for longer: (1.5 x 2) ** -0.2 = 0.80 of the
    error is left of it, (1.5) ** -0.2 = 0.92 of that of frozen features."""
    task, names, plan = get_task("segmentation"), ["a", "b"], {"steps": 80, "last": 160}
    frozen, floor = Attempt("head", {}, unlabeled=False, frozen=True), FLOOR
    assert left_of_error(floor, plan, 2 / 3) == pytest.approx(3**-0.2)
    assert left_of_error(frozen, plan, 2 / 3) == pytest.approx(1.5**-0.2)
    assert left_of_error(floor, {"steps": 80, "last": 80}, 0.5) == pytest.approx(2**-0.2)
    base = np.random.default_rng(0).integers(60, 80, 12)
    trained = replace(trial(floor, base), left=left_of_error(floor, plan, 2 / 3))
    ahead, far = (replace(trial(frozen, base + k), left=left_of_error(frozen, plan, 2 / 3)) for k in (3, 12))
    assert trained.expected == pytest.approx(1 - (1 - trained.score) * 3**-0.2)
    assert clearly_better(task, replace(ahead, left=1.0), replace(trained, left=1.0), names)
    assert ranked(task, [ahead, trained], names)[0] is trained
    assert ranked(task, [far, trained], names)[0] is far
    said = score_interval(task, trained, names)
    assert said.value == pytest.approx(trained.expected) and said.low < trained.expected < said.high


def test_a_recipe_is_taken_only_where_images_left_out_agree():
    task, names = get_task("segmentation"), ["a", "b"]
    rng = np.random.default_rng(0)
    base = rng.integers(50, 90, 12)
    plain = trial(PLAIN, base)
    assert ranked(task, [plain, trial(ONE, base + 5)], names)[0].attempt is ONE
    assert ranked(task, [plain, trial(ONE, base - 5)], names)[0].attempt is PLAIN
    lucky = base + np.where(np.arange(12) == 3, 12, -rng.integers(0, 2, 12))  # better on one image, worse on the rest
    assert ranked(task, [plain, trial(ONE, lucky)], names)[0].attempt is PLAIN
    both = ranked(task, [plain, trial(ONE, base + 5), trial(TWO, base + 8)], names)
    assert [t.attempt for t in both] == [TWO, ONE, PLAIN]
    gain = gain_over(task, trial(ONE, base + 5), plain, names)
    assert gain.value > 4 * gain.sd > 0


def test_intervals_of_a_score_hold_about_as_often_as_they_say():
    task, names, hits = get_task("segmentation"), ["a", "b"], []
    rng = np.random.default_rng(0)
    true = trial(PLAIN, rng.binomial(100, rng.beta(8, 3, 20_000))).score
    for _ in range(60):
        said = score_interval(task, trial(PLAIN, rng.binomial(100, rng.beta(8, 3, 12))), names)
        hits.append(said.low <= true <= said.high)
    assert 0.7 <= np.mean(hits) <= 0.97
    assert score_interval(task, trial(PLAIN, [50, 60]), names) is None


def test_masks_that_agree_are_no_certainty():
    """All are right, or both gain a point: the next one may be another."""
    task, names = get_task("segmentation"), ["a", "b"]
    perfect = trial(PLAIN, [100] * 6)
    said = score_interval(task, perfect, names)
    assert said.high == 1 and said.low == pytest.approx(1 - 1.2816 * 0.5 / 6, abs=1e-3)
    assert not clearly_better(task, trial(ONE, [100] * 6), perfect, names)  # as good
    floor, ahead = trial(FLOOR, [60, 62]), trial(ONE, [61, 63])
    assert ranked(task, [floor, ahead], names)[0] is floor
    assert ranked(task, [floor, trial(ONE, [90, 92])], names)[0].attempt is ONE
    assert gain_interval(task, ahead, floor, names) == ("unclear", None)
    base = np.array([50, 60, 70, 80])
    helps, gain = gain_interval(task, trial(ONE, base + 1), trial(PLAIN, base), names)
    assert helps == "unclear" and gain.low < 0 < gain.value < gain.high
    helps, gain = gain_interval(task, trial(ONE, base + 19), trial(PLAIN, base), names)
    assert helps == "yes" and gain.low > 0


@pytest.mark.parametrize("floor", [FLOOR, None])
def test_without_a_score_nothing_is_ranked_by_it(floor):
    task, m = get_task("segmentation"), np.zeros((5, 2, 2))
    m[:, 0, 0] = 9  # the background alone
    tried = [Trial(one, m, 0.0, told=False) for one in (PLAIN, *([floor] if floor else []), ONE)]
    assert ranked(task, tried, ["a", "b"])[0].attempt is (floor or PLAIN)
    assert tried[0].accuracy is None and "not cross-validated" in repr(tried[0])


def test_slices_of_a_volume_are_one_draw_of_an_interval():
    task, names = get_task("segmentation"), ["a", "b"]
    volumes = np.random.default_rng(0).integers(50, 95, 6)
    apart = trial(PLAIN, np.repeat(volumes, 4))
    together = replace(apart, group=np.repeat(np.arange(6), 4))
    one, other = (score_interval(task, found, names) for found in (apart, together))
    assert other.value == one.value and other.high - other.low > 1.6 * (one.high - one.low)
    assert score_interval(task, replace(apart, group=np.repeat(np.arange(3), 8)), names) is None


@pytest.mark.parametrize("name", ["classification", "multilabel"])
def test_tallies_give_the_scores_of_an_evaluation_where_classes_have_as_many_images(name):
    task, rng, names = get_task(name), np.random.default_rng(0), ["a", "b", "c"]
    p = rng.dirichlet(np.ones(3), 39)
    y = rng.permutation(39) % 3 if name == "classification" else rng.integers(2, size=(39, 3))
    tallies = np.stack([p, task.shares(torch.as_tensor(y), names)], 1)
    assert task.total(tallies, names) == pytest.approx(task.scores(p, y, names)[task.score.key])


# ---- masks -----------------------------------------------------------------------------------------------------------
MASKS = dict(task="segmentation", num_labels=6, image_size=32, stored_size=32, architecture="unet", to_label=3)


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """A folder of images with masks: 16 to train on, of two sizes, and 4 to test."""
    folder, rng = tmp_path_factory.mktemp("discs"), np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 4)):
        for i in range(count):
            high = 32 if i % 3 else 28
            y, x = np.mgrid[:high, :32]
            disc = (y - rng.integers(8, 24)) ** 2 + (x - rng.integers(8, 24)) ** 2 < rng.integers(20, 80)
            pixels = rng.integers(0, 120, (high, 32, 3)) + 100 * disc[..., None]
            for kind, image in (("images", pixels), ("masks", disc)):
                path = folder / kind / part / f"{i:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def masks(tmp_path_factory, network, discs):
    folder = tmp_path_factory.mktemp("masks") / "run"
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return folder, auto(discs, network, output_dir=folder, **MASKS)


def test_masks_leave_an_ordinary_run(masks, discs):
    folder, best = masks
    assert {one.name for one in best.ladder} == {"linear probe", "nearest pixels", "supervised", "CutMix"}
    assert all(len(one.tallies) == 6 for one in best.ladder)  # each mask was left out once
    record = json.loads((folder / "run.json").read_text())
    assert sum(row["kept"] for row in record["ladder"]) == 1 and record["advice"]
    assert evaluate(folder, discs)["miou"] == pytest.approx(best.run.metrics["miou"])
    card, page = (folder / "README.md").read_text(), (folder / "advice.html").read_text()
    assert "## What was tried" in card and "On new images" in page
    each = re.search(r"IoU of each class in cross-validation: (.*?) (\d+) %, (.*?) (\d+) %\.", str(best.advice))
    shown = segmentation_metrics(best.ladder[0].tallies.sum(0), [each[1], each[3]])
    assert [int(each[2]), int(each[4])] == pytest.approx([100 * v for v in shown["per_class"]], abs=0.51)
    assert each[0] in page
    assert best.to_label is None and "Label these next" not in page  # the others have a mask already


@pytest.mark.parametrize("train", [True, False])
def test_the_side_that_is_asked_for_is_the_one_that_the_model_sees(network, discs, tmp_path, short, train):
    """Of the shorter side of whole images; the card names the longer one, to which the model scales what it is given,
    and the crops of training where there was any."""
    given = {**MASKS, "to_label": 0, "image_size": 16, "stored_size": None, "train": train}
    best = auto(discs, network, output_dir=tmp_path / "run", **given)
    side = json.loads((tmp_path / "run" / "config.json").read_text())["image_size"]
    assert 16 <= side <= 19  # images of 32 x 32 and 32 x 28 px
    card, trained_on = (tmp_path / "run" / "README.md").read_text(), " (trained on crops of 16 px)"
    was_trained = bool(best.run.recorder.record.steps)
    assert f"seen at {side} px on the longer side{trained_on * was_trained}." in card and was_trained <= train
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["scored_at_px"] == side


def test_the_settings_of_masks_make_the_same_by_hand(masks, tmp_path):
    folder, best = masks
    argv = ["finetune", "--config", str(folder / "training.yaml"), "--output-dir", str(tmp_path / "by-hand")]
    assert main(argv) == 0
    from safetensors.torch import load_file

    a, b = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "by-hand"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_classes_in_a_text_file(network, discs, tmp_path, short):
    """As finetune takes them: one path, not its letters."""
    (tmp_path / "names.txt").write_text("ground\ndisc\n")
    given = {**MASKS, "to_label": 0, "mask_format": "index", "classes": str(tmp_path / "names.txt")}
    best = auto(discs, network, output_dir=tmp_path / "run", **given)
    assert list(best.model.config.id2label.values()) == ["ground", "disc"]


def dies_in_its_last_attempt(data, network, folder):
    shorten(pytest.MonkeyPatch())
    left_out, done = trained.Trials.left_out, []

    def dying(self, *given):
        if len(done) == 7:
            os._exit(9)
        done.append(left_out(self, *given))
        return done[-1]

    trained.Trials.left_out = dying
    auto(data, network, output_dir=folder, **MASKS)


def test_a_killed_search_takes_up_its_trials(network, discs, tmp_path, masks, short):
    """SIGKILL in the last attempt: the same command again does not train the others again, and ends the same."""
    process = begun(dies_in_its_last_attempt, discs, network, tmp_path / "run", stderr=tmp_path / "stderr")
    process.join()
    assert process.exitcode == 9, (tmp_path / "stderr").read_text()
    kept = sorted((tmp_path / "run" / "trials").glob("*/tallies.safetensors"))
    times = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 7
    with pytest.raises(UserError, match="was tried with other labels"):
        auto(discs, network, output_dir=tmp_path / "run", **{**MASKS, "num_labels": 7})
    best = auto(discs, network, output_dir=tmp_path / "run", **MASKS)
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert best.run.metrics == masks[1].run.metrics and [t.score for t in best.ladder] == [
        t.score for t in masks[1].ladder
    ]


def test_what_there_was_no_time_for_is_told_with_its_command(network, discs, tmp_path, short, monkeypatch, capsys):
    """At the end, too, where it is looked for; and that many minutes are enough."""
    argv = f"auto {discs} --model {network} --task segmentation --image-size 32 --num-labels 6 --to-label 0"
    out = ["--minutes=0.5", "--output-dir", str(tmp_path / "run")]
    monkeypatch.setattr(trained.Trials, "seconds", lambda self, attempt, most: 0.0 if attempt.frozen else 5.0)
    monkeypatch.setattr(trained.Trials, "fit_seconds", lambda self, attempt: 0.1)
    assert main([*argv.split(), *out]) == 0
    printed, plan = capsys.readouterr().out, json.loads((tmp_path / "run" / "trials" / "plan.json").read_text())
    assert set(plan["later"]) == {"CutMix", "supervised"}
    said = re.search(
        r"There was no time for CutMix \(from about --minutes (\d+)\); supervised \(from .* (\d+)\)\.", printed
    )
    assert int(said[1]) > int(said[2]) and said[0] in (tmp_path / "run" / "advice.html").read_text()
    line = next(line for line in printed.splitlines() if line.startswith("with more time: hf-lowlabel auto "))
    assert line.endswith(f"--minutes {said[1]} --output-dir {tmp_path / 'run-2'}") and "=0.5" not in line
    left = 60 * int(said[1]) * SPENT - 1.5
    attempts = {a: 0.0 if a.frozen else 5.0 for a in Segmentation.attempts}
    found = settle(attempts, left, 6, choices=(2,), longer=2.0)
    assert found.attempts == list(attempts) and not found.later


def test_more_minutes_for_a_search_that_was_stopped(network, discs, tmp_path, short, monkeypatch, caplog):
    """As when what did not fit was read on the console: the command again with more minutes tries it."""

    def stopped(*args):
        raise KeyboardInterrupt

    short_of_time = {**MASKS, "to_label": 0, "minutes": 0.02}
    monkeypatch.setattr(trained.Trials, "seconds", lambda self, attempt, most: 0.0 if attempt.frozen else 0.5)
    monkeypatch.setattr(trained.Trials, "fit_seconds", lambda self, attempt: 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(on_training, "train_network", stopped)
        patch.setattr(on_training.frozen, "fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            auto(discs, network, output_dir=tmp_path / "run", **short_of_time)

    def planned():
        return json.loads((tmp_path / "run" / "trials" / "plan.json").read_text())["attempts"]

    assert "CutMix" not in planned() and "CutMix is not tried" in caplog.text
    with pytest.raises(UserError, match="was tried with other labels"):
        auto(discs, network, output_dir=tmp_path / "run", **{**MASKS, "num_labels": 7})
    assert "CutMix" not in planned()
    best = auto(discs, network, output_dir=tmp_path / "run", **{**MASKS, "to_label": 0})
    assert "was planned for 0.02 minutes" in caplog.text
    assert "CutMix" in {one.name for one in best.ladder} and "CutMix" in planned()
    assert not best.advice.later


def test_a_class_that_one_mask_shows(network, discs, tmp_path):
    """Without it nothing could be told apart: it is never left out, the search has an answer, and no score."""
    shutil.copytree(discs, tmp_path / "data")
    masks = sorted((tmp_path / "data" / "masks" / "train").iterdir())
    for path in masks[1:]:
        Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    best = auto(
        tmp_path / "data", network, output_dir=tmp_path / "run", **{**MASKS, "num_labels": None, "train": False}
    )
    assert best.advice.sentences[0] == (
        "On new images: not known. The masks that can be left out show class 0 alone, whose score says nothing; "
        "class 1 (1 of the 16 masks) cannot be left out, so label more that show others."
    )
    assert len(best.ladder[0].tallies) == len(masks) - 1
    assert best.advice.accuracy is None and "100" not in repr(best) + repr(best.ladder)
    assert [row["by_labels"] for row in best.run.recorder.ladder] == [None, None]
    assert "100" not in (tmp_path / "run" / "advice.html").read_text().partition("What was tried")[2]


def test_a_recipe_that_diverges_is_left_out(network, discs, tmp_path, short, monkeypatch):
    fit = trained.Trials.fit

    def diverging(self, ready, callbacks=()):
        if not callbacks and ready.config.method.__name__ == "CutMixSeg":
            raise Diverged("the loss was NaN")
        return fit(self, ready, callbacks)

    monkeypatch.setattr(trained.Trials, "fit", diverging)
    best = auto(discs, network, output_dir=tmp_path / "run", **{**MASKS, "to_label": 0})
    assert {one.name for one in best.ladder} == {"linear probe", "nearest pixels", "supervised"}
    assert best.to_label is None


def test_an_attempt_that_diverges_while_it_is_timed_is_left_out(network, tmp_path, short, monkeypatch, caplog):
    """By a loss that is no number in each of the few steps."""
    forward = MultiLabelFixMatch.forward

    def no_number(self, batch, t):
        out = forward(self, batch, t)
        return {**out, "loss": out["loss"] * float("nan")}

    monkeypatch.setattr(MultiLabelFixMatch, "forward", no_number)
    given = dict(task="multilabel", num_labels=24, image_size=32, output_dir=tmp_path / "run", to_label=0)
    best = auto("scenes", network, **given)
    assert {one.name for one in best.ladder} == {"linear probe", "supervised"}
    assert "FixMatch is not taken: The loss" in caplog.text and not (tmp_path / "run" / "trials" / "clock").exists()
    assert any("Unlabeled images: training with them diverged" in line for line in best.advice.sentences)


def test_where_the_last_run_diverges_the_next_best_is_the_answer(network, discs, tmp_path, short, monkeypatch):
    trained_as, runs = on_training.train_network, []

    def diverging(ready, callbacks=()):
        runs.append(ready.config.method.__name__)
        if runs[-1] == "CutMixSeg":
            trained_as(ready, callbacks)  # its checkpoints and its log are there
            raise Diverged("the loss was NaN")
        return trained_as(ready, callbacks)

    two = [a for a in Segmentation.attempts if not a.frozen]
    monkeypatch.setattr(Segmentation, "attempts", tuple(two))
    monkeypatch.setattr(on_training, "train_network", diverging)
    monkeypatch.setattr(
        on_training, "ranked", lambda task, tried, names: sorted(tried, key=lambda t: t.name != "CutMix")
    )
    given = {**MASKS, "to_label": 0, "output_dir": tmp_path / "run"}
    best = auto(discs, network, **given)
    assert best.ladder[0].name == "supervised" and runs == ["CutMixSeg", "Supervised"]
    assert [row["name"] for row in best.run.recorder.ladder if row["kept"]] == ["supervised"]
    assert any("training with all labels diverged" in line for line in best.advice.sentences)
    assert "diverged" in (tmp_path / "run" / "README.md").read_text()
    assert evaluate(tmp_path / "run", discs)["miou"] == pytest.approx(best.run.metrics["miou"])
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)  # of one run


def test_a_search_that_goes_on_does_not_train_again_what_diverged(tmp_path):
    def run(one, gone):
        tried.append((one, list(gone)))
        if one in "ab":
            raise Diverged("the loss was NaN")
        raise KeyboardInterrupt if one == "c" and len(tried) == 3 else ValueError

    tried = []
    (tmp_path / "checkpoints").mkdir()  # of the network that diverged
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            first_that_ends(tmp_path, "abc", str, run)
    assert tried == [("a", []), ("b", ["a"]), ("c", ["a", "b"]), ("c", ["a", "b"])]
    assert not (tmp_path / "checkpoints").exists()
    with pytest.raises(Diverged, match="the loss was NaN"):
        first_that_ends(tmp_path / "other", "b", str, run)


def test_a_kill_after_a_last_run_that_diverged_leaves_nothing_of_it_to_the_next(tmp_path, monkeypatch):
    """Whose settings are others: it could not go on from there. Half of a folder of checkpoints is none."""
    (tmp_path / "checkpoints" / "step-00000004").mkdir(parents=True)

    def run(name, gone):
        raise Diverged(f"{name} did; try less")

    def killed(folder, **_):
        if folder.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr("hf_lowlabel.files.shutil.rmtree", killed)
        first_that_ends(tmp_path, "ab", str, run)
    assert not (tmp_path / "checkpoints").exists()
    (tmp_path / "checkpoints" / "step-00000004").mkdir(parents=True)
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr("hf_lowlabel.ladder.last_run.write_json", Mock(side_effect=KeyboardInterrupt))
        first_that_ends(tmp_path, "ab", str, run)
    assert not (tmp_path / "checkpoints").exists()


def test_attempts_know_which_train_no_network():
    for name in TASKS:
        task = get_task(name)
        for attempt in task.attempts:
            assert attempt.frozen == task.method("finetune", attempt.settings["method"]).frozen


def test_neighbours_are_the_answer_where_masks_left_out_prefer_them(network, discs, tmp_path, short, monkeypatch):
    """And training.yaml makes the same by hand."""
    only = [a for a in Segmentation.attempts if a.settings["method"] == "knn"]
    monkeypatch.setattr(Segmentation, "attempts", tuple(only))
    best = auto(discs, network, output_dir=tmp_path / "run", **{**MASKS, "to_label": 0})
    assert [one.name for one in best.ladder] == ["nearest pixels"]
    again = evaluate(tmp_path / "run", discs)["miou"]
    assert again == pytest.approx(best.run.metrics["miou"])
    argv = ["finetune", "--config", str(tmp_path / "run" / "training.yaml"), "--output-dir", str(tmp_path / "by-hand")]
    assert main(argv) == 0
    assert evaluate(tmp_path / "by-hand", discs)["miou"] == pytest.approx(again)


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(num_labels=1), "needs at least two"),
        (dict(class_balanced=True), "class_balanced is for images of one class each"),
    ],
)
def test_what_masks_cannot_be_asked(network, discs, tmp_path, given, says):
    settings = {"model": network, **MASKS, **given}
    with pytest.raises(UserError, match=says):
        auto(discs, output_dir=tmp_path / "run", **settings)
    assert not (tmp_path / "run" / "training.yaml").exists()


# ---- several classes of an image, and one ----------------------------------------------------------------------------
def test_several_classes_of_an_image(network, tmp_path, short):
    best = auto(
        "scenes", network, task="multilabel", num_labels=24, image_size=32, output_dir=tmp_path / "run", to_label=2
    )
    assert {one.name for one in best.ladder} == {"linear probe", "supervised", "FixMatch"}
    assert best.ladder[0].name == "linear probe"  # the others had three steps
    assert evaluate(tmp_path / "run", "scenes")["map"] == pytest.approx(best.run.metrics["map"])
    assert any(s.startswith("On new images: Mean average precision") for s in best.advice.sentences)


def test_frozen_features_are_computed_once(network, tmp_path, monkeypatch):
    """For the trials, the head, the priors, the fair sample and what to label next: images of 240 px take minutes."""
    few_shapes(monkeypatch.setattr)
    asked, run_over = [], inference.run_over

    def counting(pool, view, function, indices=None, batch_size=256):
        asked.append(len(pool if indices is None else indices))
        return run_over(pool, view, function, indices, batch_size)

    monkeypatch.setattr(inference, "run_over", counting)
    given = dict(task="multilabel", num_labels=24, image_size=32, output_dir=tmp_path / "run", to_label=2, train=False)
    best = auto("scenes", network, **given)
    left_out = 24  # by the trials
    assert sum(asked) == len(best.run.recorder.caches[0]) + best.run.metrics["images"] + left_out
    again = evaluate(tmp_path / "run", "scenes")
    assert again["map"] == pytest.approx(best.run.metrics["map"], abs=1e-6)


def test_networks_are_tried_where_a_search_without_them_was_stopped(network, tmp_path, short, monkeypatch, caplog):
    """Its plan, and the side of its images, are of heads that cost no time."""

    def stopped(*args):
        raise KeyboardInterrupt

    given = dict(task="multilabel", num_labels=24, image_size=32, output_dir=tmp_path / "run", to_label=0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(on_training.frozen, "fit", stopped)
        auto("scenes", network, train=False, minutes=1e4, **given)  # more than it has now, which is said of none
    size = tmp_path / "run/trials/size.json"
    size.write_text("{}")
    best = auto("scenes", network, **given)
    assert "planned without training networks" in caplog.text and "keeps that plan" not in caplog.text
    assert not size.is_file()
    assert {one.name for one in best.ladder} == {"linear probe", "supervised", "FixMatch"}
    assert not any("there was no time" in sentence for sentence in best.advice.sentences)


@pytest.mark.slow
def test_networks_are_trained_on_from_the_frozen_head(network, tmp_path, short):
    given = dict(num_labels=40, class_balanced=True, image_size=16, to_label=0)
    best = auto("digits", network, output_dir=tmp_path / "run", **given)
    names = [row["name"] for row in best.run.recorder.ladder]
    assert sum("self-training from" in n for n in names) == sum("FixMatch from" in n for n in names) == 1
    assert sum(s.startswith("Finetuning the network") for s in best.advice.sentences) == 2
    plain = auto("digits", network, output_dir=tmp_path / "plain", train=False, **given)
    assert not (tmp_path / "plain" / "trials").exists() and len(plain.ladder) == 5


def test_networks_that_there_was_no_time_for_are_told_beside_a_frozen_head(
    network, colours, tmp_path, short, monkeypatch
):
    monkeypatch.setattr(trained.Trials, "seconds", lambda self, attempt, most: 1000.0)
    given = dict(num_labels=12, class_balanced=True, image_size=16, to_label=0, minutes=2)
    best = auto(colours, network, output_dir=tmp_path / "run", **given)
    assert set(best.advice.later) == {"self-training", "FixMatch"} and min(best.advice.later.values()) > 2
    said = [s for s in best.advice.sentences if s.startswith("There was no time for FixMatch (from about --minutes ")]
    assert len(said) == 1 and said[0] in (tmp_path / "run" / "README.md").read_text()


def test_a_network_that_labels_left_out_prefer_is_the_answer(network, colours, tmp_path, short, monkeypatch):
    """And training.yaml names the priors that it started from."""
    from hf_lowlabel.ladder import finetuned

    monkeypatch.setattr(finetuned.Finetuned, "kept", property(lambda self: self.attempt.name == "FixMatch"))
    monkeypatch.setattr(finetuned, "by_gain", lambda one: one.attempt.name != "FixMatch")
    given = dict(num_labels=24, class_balanced=True, image_size=16, to_label=0, test_fraction=0.2)
    best = auto(colours, network, output_dir=tmp_path / "run", **given)
    assert best.ladder[0].name.startswith("FixMatch from") and best.run.config.training.max_steps == STEPS
    settings = (tmp_path / "run" / "training.yaml").read_text()
    assert f"prior: {tmp_path / 'run' / 'priors.safetensors'}" in settings and "head_init: priors" in settings
    assert evaluate(tmp_path / "run", colours, split=str(tmp_path / "run" / "split.json"))["accuracy"] == pytest.approx(
        best.run.metrics["accuracy"]
    )
    said = [line for line in best.advice.sentences if line.startswith("On the 24 test images")]
    scores = best.run.metrics
    told = f"{percent(scores['accuracy'])} ± {100 * scores['accuracy_error']:.1f}"
    assert said == [f"On the 24 test images: {told} right."]  # not the frozen head's
    (kept,) = (row for row in best.run.recorder.ladder if row["kept"])
    assert kept["name"].startswith("FixMatch from") and "the frozen features, also 2-fold" in kept["name"]
    assert "that is for the frozen features" in best.advice.sentences[0]  # which were judged otherwise
    assert "on new images by the frozen features it was finetuned from" in repr(best)
    assert "by the frozen features" in repr(best.advice)
    assert not why_less(best.run.recorder.ladder, Interval(0.0, 0.0, 0.1))  # of the network nothing is expected
    last = read_round(tmp_path / "run", [], 2, "accuracy")
    assert "by its frozen features, before the network was trained" in str(State([last], None, 0))
    for name in ("README.md", "advice.html"):
        assert kept["name"] in (tmp_path / "run" / name).read_text()


@pytest.mark.parametrize("task", ["segmentation", "multilabel"])
def test_copies_go_with_their_picture(task, network, tmp_path, short, monkeypatch):
    """Six pictures, each twice: six are asked, and none of them has its copy among those learned from."""
    random, data = np.random.default_rng(0), tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "masks").mkdir()
    rows = ["file_name,labels"]
    for i in range(6):
        disc = np.zeros((32, 32), bool)
        disc[4 + 2 * i : 16 + 2 * i, 8:20] = True
        pixels = random.integers(0, 120, (32, 32, 3)) + 100 * disc[..., None]
        for copy in range(2):
            Image.fromarray((pixels * (1 - 0.02 * copy)).astype(np.uint8)).save(data / "images" / f"{i}-{copy}.png")
            Image.fromarray(disc.astype(np.uint8)).save(data / "masks" / f"{i}-{copy}.png")
            rows.append(f"{i}-{copy}.png,{('a', 'b', 'a;b')[i % 3]}")
    given = dict(MASKS, num_labels=None, test_fraction=0.0, to_label=0, train=False, output_dir=tmp_path / "run")
    if task == "multilabel":
        shutil.rmtree(data / "masks")
        (data / "images" / "labels.csv").write_text("\n".join(rows))
        given = {k: v for k, v in given.items() if k != "architecture"} | dict(task=task)
        data = data / "images"
    seen, part = [], trained.Trials.part
    monkeypatch.setattr(
        trained.Trials, "part", lambda self, of, rows, *a, **more: seen.append(rows) or part(self, of, rows, *a, **more)
    )
    best = auto(data, network, **given)
    assert "over 6 " in best.advice.sentences[0] and "of different pictures" in best.advice.sentences[0]
    assert min(map(len, seen)) < 12 and all(len(rows) == 2 * len({*(rows // 2)}) for rows in seen)


def test_labels_of_bursts_are_trained_with(network, tmp_path, short):
    """Every picture is there four times: each half of the pictures is learned from, with its copies."""
    random = np.random.default_rng(0)
    for kind in range(2):
        for i in range(4):
            pixels = 90.0 * kind + random.integers(0, 90, (16, 16, 3))
            for copy in range(4):
                path = tmp_path / "data" / f"kind {kind}" / f"{i}-{copy}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((pixels * (1 - 0.01 * copy)).astype(np.uint8)).save(path)
    given = dict(image_size=16, to_label=0, test_fraction=0.0)
    best = auto(tmp_path / "data", network, output_dir=tmp_path / "run", **given)
    said = best.advice.sentences[0]  # the first and the last of a burst differ by more than copies do
    assert "labeled pictures, grouped by file or film (8 files and films" in said
    assert sum("(2-fold;" in row["name"] for row in best.run.recorder.ladder) == 2


def test_where_the_network_diverges_with_all_labels_the_frozen_head_is_the_answer(
    network, colours, tmp_path, short, monkeypatch
):
    from hf_lowlabel.ladder import finetuned

    def diverging(ready, callbacks=()):
        raise Diverged("the loss was NaN")

    monkeypatch.setattr(finetuned.Finetuned, "kept", property(lambda self: True))
    monkeypatch.setattr(finetuned, "train", diverging)
    given = dict(num_labels=24, class_balanced=True, image_size=16, to_label=0, test_fraction=0.2)
    best = auto(colours, network, output_dir=tmp_path / "run", **given)
    assert best.ladder[0].name.startswith("probe and propagations, blended")
    assert [row["name"] for row in best.run.recorder.ladder if row["kept"]] == [best.ladder[0].name]
    gone = [line for line in best.advice.sentences if line.endswith("training with all labels diverged.")]
    assert len(gone) == 1 and "FixMatch" in gone[0] and "self-training" in gone[0]
    again = evaluate(tmp_path / "run", colours, split=str(tmp_path / "run" / "split.json"))
    assert again["accuracy"] == pytest.approx(best.run.metrics["accuracy"])
    rows = [row.name for row in best.run.recorder.comparisons]
    assert len(rows) == len(set(rows)) > 0


def test_why_a_row_is_kept():
    rows = [dict(name=str(v), by_labels=v, kept=False) for v in (0.7, None, 0.8)]
    assert why_kept(rows) == why_kept([]) == "" == why_kept([*rows, dict(name="a", by_labels=0.8, kept=True)])
    assert why_kept([*rows, dict(name="a", by_labels=0.79, kept=True)])
    halves = dict(name="a", by_labels=0.7, kept=True, halves=True)
    assert not why_kept([*rows, halves])  # the others were judged with more labels to learn from
    assert why_kept([*rows, halves, dict(name="b", by_labels=0.72, kept=False, halves=True)])
    assert not why_kept([dict(by_labels=0.1 + 0.2, kept=False), dict(by_labels=0.3, kept=True)])  # shown as one number


def test_doubt_is_of_the_image_it_is_given_for(masks):
    """Images of two sizes are looked at by size, and answered in the order they were asked in."""
    folder, best = masks
    task, model = get_task("segmentation"), best.model
    cache = best.run.recorder.caches[0]
    asked = torch.tensor([5, 0, 3, 7])
    together = task.doubt(model, cache, asked)
    for at, i in enumerate(asked):
        alone = task.doubt(model, cache, i[None])
        np.testing.assert_allclose(together[0][at], alone[0][0], rtol=1e-4)
        np.testing.assert_allclose(together[1][at], alone[1][0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seconds, side", [(10**6, 200), (260, 160), (220, 96)])
def test_images_are_as_large_as_the_time_allows(network, tmp_path, monkeypatch, seconds, side):
    """Views and stored images go together, a search that is taken up keeps its size, and it is said."""
    rng = np.random.default_rng(0)
    for kind, wide in (("images", (200, 260, 3)), ("masks", (200, 260))):
        for i in range(6):
            path = tmp_path / "data" / kind / "train" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 255 if kind == "images" else 2, wide)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    monkeypatch.setattr(image_side.Trials, "seconds", lambda self, attempt, most: 0.1)  # at 96 px
    given = dict(image_size=None, stored_size=None)
    data = dict(task="segmentation", dataset=str(tmp_path / "data"), model=str(network), num_labels=6, max_steps=1)
    more = dict(architecture="unet", batch_size=2, method="supervised", callbacks=())
    ready = prepare(get_task("segmentation"), settled("finetune", {**data, **more}), tmp_path / "run")

    def configs(settings):
        return {PLAIN: settled("finetune", {**data, **more, **settings})}

    for _ in range(2):
        found, settings, said = at_fitting_side(ready, given, configs, seconds)
        assert settings["image_size"] == (None if side == 200 else side) and (said is None) == (side == 200)
        assert found.network.size[0] == side and found.labeled.cache.sizes.max() == round(side * 1.3)
        seconds = 10**6 if side == 96 else 1  # kept on the disk
    asked, settings, said = at_fitting_side(ready, dict(given, image_size=64), configs, 1)
    assert asked.network.size[0] == 64 and asked.labeled.cache.sizes.max() == settings["stored_size"] == 83
    assert said is None and asked.network.model.config.image_size == 83
    for whole in (dict(image_size=200), dict(image_size=64, stored_size=100), dict(stored_size=100)):
        assert at_fitting_side(ready, given | whole, configs, 1) == (ready, given | whole, None)
    if side == 160:  # an attempt that diverges at the side where it is timed decides nothing
        monkeypatch.setattr(
            image_side.Trials, "seconds", lambda self, attempt, most: diverges() if attempt is ONE else 0.1
        )
        both = lambda settings: dict.fromkeys((PLAIN, ONE), configs(settings)[PLAIN])  # noqa: E731
        assert (
            image_side.measured(ready, ready.task.sides(ready.dataset), given, both, seconds=260)["image_size"] == 160
        )
        monkeypatch.setattr(image_side.Trials, "seconds", lambda self, attempt, most: 0.0 if attempt.frozen else 0.1)
        head = Attempt("head", {}, unlabeled=False, frozen=True)
        with_head = lambda settings: dict.fromkeys((head, PLAIN), configs(settings)[PLAIN])  # noqa: E731
        for fit, side in ((1.0, 160), (10.0, 96)):  # s at 96 px, for each of three folds and one on all labels
            monkeypatch.setattr(image_side.Trials, "fit_seconds", lambda self, attempt, fit=fit: fit)
            found = image_side.measured(ready, ready.task.sides(ready.dataset), given, with_head, seconds=280)
            assert found["image_size"] == side
        alone = lambda settings: {head: configs(settings)[PLAIN]}  # noqa: E731
        for seconds, side in ((140, 160), (100, 96)):  # heads alone keep to the time too: 4 fits of 28 s at 160 px
            found = image_side.measured(ready, ready.task.sides(ready.dataset), given, alone, seconds=seconds)
            assert found["image_size"] == side


def test_a_network_is_taken_for_more_than_one_label():
    from hf_lowlabel.ladder.finetuned import Finetuned

    def kept(wins, losses):
        rows = [np.zeros(wins + losses + 5), np.zeros(wins + losses + 5)]
        rows[1][:wins] = rows[0][wins : wins + losses] = 1
        return Finetuned(ONE, *(SimpleNamespace(correct=row) for row in rows), gain=0.2, steps=3).kept

    assert kept(2, 0) and kept(6, 2) and not any(kept(*pair) for pair in ((0, 0), (1, 0), (3, 1), (2, 2), (0, 2)))

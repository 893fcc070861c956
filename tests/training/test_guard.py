"""A bad loss leaves no trace: weights, average, BatchNorm, queue, optimizer."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_lowlabel import api, load_segmentation, load_source
from hf_lowlabel.arguments import TrainingArguments
from hf_lowlabel.data.sources.several_targets import scenes
from hf_lowlabel.errors import Diverged, UserError
from hf_lowlabel.tasks import TASKS, get_task
from hf_lowlabel.tasks.data_classes import Examples
from hf_lowlabel.training.guard import NonFiniteGuard
from hf_lowlabel.training.loop import Loop
from hf_lowlabel.training.optim import build_optimizer
from hf_lowlabel.training.run import LOOKED_AT, one_class_words

from .conftest import tensors

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("method, bad", [("fixmatch", NAN), ("fixmatch", INF), ("byol", NAN), ("moco", NAN)])
def test_bad_step_leaves_no_trace(method, bad, tiny, few_images, tmp_path, monkeypatch):
    """The state after a poisoned step 3 equals the state before it, bit by bit."""
    step = Loop.train_step

    def train_step(self, batch):
        if self.step != 3:
            return step(self, batch)
        before = copy.deepcopy((self.inner.state_dict(), self.optimizer.state_dict()["state"]))
        for image in batch["views"] if "views" in batch else [batch["unlabeled"]["strong"]]:
            image[0, 0, 0, 0] = bad
        out = step(self, batch)
        after = (self.inner.state_dict(), self.optimizer.state_dict()["state"])
        same(before, after)
        seen.append(out)
        return out

    def same(a, b):
        if torch.is_tensor(a):
            assert torch.equal(a, b)
        elif isinstance(a, dict):
            assert a.keys() == b.keys()
            for k in a:
                same(a[k], b[k])
        elif isinstance(a, tuple):
            for x, y in zip(a, b, strict=True):
                same(x, y)

    seen = []
    monkeypatch.setattr(Loop, "train_step", train_step)
    verb = "finetune" if method == "fixmatch" else "pretrain"
    run = getattr(api, verb)(**tiny[verb], method=method, output_dir=str(tmp_path))
    assert len(seen) == 1 and not torch.isfinite(seen[0]["loss"])
    skipped = [row["skipped"] for row in run.progress.history if "loss" in row]
    assert int(run.progress.guard.total) == 1 and skipped == [0, 0, 0, 1, 1, 1]
    json.loads(
        (tmp_path / "log.jsonl").read_text().splitlines()[3],
        parse_constant=lambda name: pytest.fail(f"{name} is not JSON"),
    )
    assert all(v.isfinite().all() for v in tensors(tmp_path, 6).values() if v.is_floating_point())


def test_bad_steps_in_a_row_stop_the_run(tiny, tmp_path, monkeypatch):
    step = Loop.train_step

    def train_step(self, batch):
        batch["unlabeled"]["strong"].fill_(float("nan"))
        return step(self, batch)

    monkeypatch.setattr(Loop, "train_step", train_step)
    with pytest.raises(UserError, match="NaN or infinite 3 steps in a row"):
        api.finetune(**tiny["finetune"], max_bad_steps=3, output_dir=str(tmp_path))
    assert {"checkpoints", "split.json", "training.yaml", "log.jsonl"} <= {
        p.name for p in tmp_path.iterdir()
    }  # to start from


@pytest.mark.parametrize(
    "verb, bad, ends",
    [("finetune", {1, 3}, ""), ("pretrain", {4, 5}, ", the last 2 among them"), ("finetune", {2}, None)],
)
def test_a_run_that_ends_with_many_bad_steps_says_so(verb, bad, ends, tiny, few_images, tmp_path, monkeypatch, caplog):
    step = Loop.train_step

    def train_step(self, batch):
        if self.step in bad:
            for image in batch["views"] if "views" in batch else [batch["labeled"]["image"]]:
                image.fill_(float("nan"))
        return step(self, batch)

    monkeypatch.setattr(Loop, "train_step", train_step)
    method = "supervised" if verb == "finetune" else "simsiam"
    more = dict(method_args=dict(out=64, hidden=32)) if verb == "pretrain" else {}
    getattr(api, verb)(**tiny[verb], method=method, **more, output_dir=str(tmp_path))
    said = f"In {len(bad)} of 6 steps{ends} the loss"
    for text in (caplog.text, (tmp_path / "README.md").read_text()):
        assert (said in text and "lower --learning-rate" in text) == (ends is not None)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_a_classifier_that_says_one_class_of_everything_is_told(task, tiny, few_images, tmp_path, monkeypatch, caplog):
    """Several classes of an image may well be the same ones of every image."""
    monkeypatch.setattr(Loop, "take_best", lambda loop: [p.data.zero_() for p in loop.inner.evaluated.parameters()])
    given = {**tiny["finetune"], "method": "supervised", "max_steps": 1}
    given |= dict(task=task, dataset="scenes", class_balanced=False, color=True) if task == "multilabel" else {}
    api.finetune(**given, output_dir=str(tmp_path))
    for text in (caplog.text, (tmp_path / "README.md").read_text()):
        assert ("tells none of the 10 classes apart" in text) == (task == "classification")


@pytest.mark.parametrize(
    "labeled, tested, right, told",
    [
        ([*range(600), 7005], [], True, False),  # the rare class has the last label of many
        (range(20), [1, 7005], True, False),  # or is held out alone
        (range(20), [], True, False),  # nobody knows an image of it: there may be none
        (range(20), [], False, False),
        ([*range(600), 7005], [], False, True),
        (range(20), [1, 7005], False, True),
    ],
)
def test_of_a_rare_class_the_images_that_are_known_are_asked(labeled, tested, right, told):
    """100,000 images in small: of five that are defect none is among 500 that are spread over all."""
    truth = torch.zeros(10_000, dtype=torch.long)
    truth[7003:7008] = 1
    answers = torch.eye(2)[truth if right else torch.zeros_like(truth)].numpy()

    def images(at):
        return Examples(None, torch.tensor([*at]), truth[[*at]])

    task = SimpleNamespace(labels_score=True, predictions=lambda model, cache, members: answers[members.numpy()])
    held = {"test": images(tested)} if tested else {}
    ready = SimpleNamespace(task=task, names=["ok", "defect"], training=truth, labeled=images(labeled), held=held)
    words = one_class_words(ready, None)
    assert ("tells none of the 2 classes apart" in words) if told else words is None


def test_an_image_with_a_label_counts_once_among_those_asked():
    truth = torch.arange(24) % 2
    labeled, test = Examples(truth, torch.arange(0, 24, 3), truth[::3]), Examples(None, torch.arange(5), truth[:5])
    task = SimpleNamespace(
        labels_score=True, predictions=lambda model, cache, members: torch.eye(2)[members * 0].numpy()
    )
    for held, count in (({}, 24), ({"test": test}, 29)):
        ready = SimpleNamespace(task=task, names=["ok", "defect"], training=truth, labeled=labeled, held=held)
        assert f"says 'ok' of all {count} images" in one_class_words(ready, None)


@pytest.mark.parametrize("tested", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_a_network_whose_answers_are_no_numbers_is_no_result(task, tested, tmp_path):
    """Its weights are finite, its bad steps too few to stop the run, and images are held out to test on, or none."""
    masks = task == "segmentation"
    data = {"classification": load_source, "segmentation": load_segmentation, "multilabel": lambda name: scenes()}
    name = get_task(task).demo.dataset
    given = dict(task=task, dataset=name if tested else data[task](name), num_labels=12, model="cnn6_16")
    given |= dict(from_scratch=True, method="supervised", batch_size=4, max_steps=4, learning_rate=1e5, optimizer="sgd")
    small = dict(encoder_depth=3, decoder_channels=[16, 8, 8])
    given |= dict(architecture="unet", architecture_args=small) if masks else {}
    given |= {} if tested else dict(test_fraction=0.0)
    with pytest.raises(Diverged, match="answers NaN or infinity for .* lower --learning-rate") as error:
        api.finetune(**given, image_size=16, stored_size=16, eval_steps=10**6, output_dir=str(tmp_path / "run"))
    assert tested or f"of {LOOKED_AT} images" in str(error.value)
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_device_path_restores_bits():
    """The path a GPU takes (select bits, no question to the host), run here on CPU tensors."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    net.register_buffer("flags", torch.tensor([True, False]))
    net.register_buffer("halves", torch.randn(3).bfloat16())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    guard = NonFiniteGuard(net, optimizer, torch.device("cpu"))
    guard.on_host = False
    net(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    for ok in (True, False):
        guard.before_forward()
        guard.live = guard.live + [
            s["momentum_buffer"].view(torch.int32) for s in optimizer.state.values()
        ]  # on a GPU the guard adds them
        guard.old = [x.clone() for x in guard.live]
        before = copy.deepcopy(net.state_dict()), [s["momentum_buffer"].clone() for s in optimizer.state.values()]

        def poison():
            with torch.no_grad():
                for t in (
                    *net.parameters(),
                    net[1].running_mean,
                    net.halves,
                    *(s["momentum_buffer"] for s in optimizer.state.values()),
                ):
                    t.fill_(float("nan"))
                net.flags.logical_not_()
                net[1].num_batches_tracked += 1

        assert guard.lets_through(torch.tensor(ok))
        poison()
        guard.undo_if_bad(torch.tensor(ok))
        unchanged = all(torch.equal(a, b) for a, b in zip(before[0].values(), net.state_dict().values(), strict=True))
        assert unchanged == (not ok)
        if not ok:
            assert all(
                torch.equal(a, s["momentum_buffer"]) for a, s in zip(before[1], optimizer.state.values(), strict=True)
            )
        else:  # make it whole again for the second round
            net.load_state_dict(before[0])
            for a, s in zip(before[1], optimizer.state.values(), strict=True):
                s["momentum_buffer"].copy_(a)
    assert int(guard.total) == 1 and int(guard.in_row) == 1


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_a_weight_whose_first_gradient_is_bad_stays_whole(name):
    """On the path of a GPU: the optimizer makes state for it, of which there are no old values."""
    net = nn.ParameterDict({"a": torch.ones(2, 2), "b": torch.ones(2, 2)})
    optimizer = build_optimizer(
        SimpleNamespace(param_groups=lambda: {"body": [*net.values()]}),
        TrainingArguments(optimizer=name, weight_decay=0.1),
        0.1,
    )
    guard = NonFiniteGuard(net, optimizer, torch.device("cpu"))
    guard.on_host = False

    def step(ok: bool, **scale) -> bool:
        guard.before_forward()
        sum(net[key].sum() * value for key, value in scale.items()).backward()
        if through := guard.lets_through(torch.tensor(ok)):
            optimizer.step()
            guard.undo_if_bad(torch.tensor(ok))
        optimizer.zero_grad()
        return through

    assert step(True, a=1.0) and not step(False, a=1.0, b=float("nan")) and step(True, a=1.0, b=1.0)
    assert all(p.isfinite().all() and not p.equal(torch.ones(2, 2)) for p in net.values())
    assert step(False, a=1.0, b=1.0)  # from here on nobody waits for the device
    assert int(guard.total) == 2

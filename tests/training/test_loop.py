"""The loop alone, around a network of three weights: what each step is given, how it may stop, what a resume brings
back."""

import contextlib
import json
import logging
import re
import signal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from hf_lowlabel.arguments import TrainingArguments
from hf_lowlabel.errors import Diverged, UserError
from hf_lowlabel.finetuning.supervised import Supervised
from hf_lowlabel.models import create_classifier
from hf_lowlabel.models.quiet import unsaid
from hf_lowlabel.objective import Objective, scalars_of
from hf_lowlabel.training import loop as looping
from hf_lowlabel.training.callbacks import Callback
from hf_lowlabel.training.checkpoint import checkpoints
from hf_lowlabel.training.loop import Loop, seed_everything
from hf_lowlabel.training.optim import build_optimizer, set_learning_rate
from hf_lowlabel.training.setup import logging_level, start_accelerator
from hf_lowlabel.training.stopping import StopSignals


class Toy(Objective):
    """Loss = the scale times the mean of w x; keeps the t and one random number of every call."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.net, self.scale, self.seen = nn.Linear(3, 1, bias=False), scale, []
        nn.init.ones_(self.net.weight)

    @property
    def evaluated(self):
        return self.net

    def forward(self, batch, t):
        self.seen.append((t, float(torch.rand(()))))
        return {"loss": self.scale * self.net(batch["x"]).mean()}


def make(folder, objective=None, process=0, evaluate=None, best_score=None, callbacks=(), **settings) -> Loop:
    default = dict(
        batch_size=2,
        head_lr=1.0,
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=0.0,
        lr_scheduler_type="linear",
        warmup_ratio=0.0,
        max_steps=4,
        logging_steps=1,
        save_steps=1,
        eval_steps=1,
    )
    args = TrainingArguments(**{**default, **settings})

    def batches(start):
        return iter([{"x": torch.full((2, 3), 1.0 + step)} for step in range(start, args.max_steps)])

    accelerator = start_accelerator(args, folder)
    if process:
        accelerator = SimpleNamespace(
            device=accelerator.device, process_index=process, is_main_process=False, autocast=accelerator.autocast
        )
    loop = Loop(
        objective or Toy(),
        batches,
        args,
        folder,
        accelerator=accelerator,
        base_learning_rate=args.learning_rate,
        evaluate=evaluate and (lambda objective: evaluate(objective, loop.step)),
        best_score=best_score,
        callbacks=callbacks,
    )
    return loop


def test_progress_and_rate_of_each_step(tmp_path):
    """Step n of N works at t = n / N: the first one at 0, none at 1."""
    loop = make(tmp_path)
    loop.fit()
    assert [t for t, _ in loop.inner.seen] == [0, 0.25, 0.5, 0.75]
    assert [row["learning_rate"] for row in loop.history] == pytest.approx([0.1, 0.075, 0.05, 0.025])


@pytest.mark.parametrize("steps, every", [(1, 1), (19, 1), (20, 1), (39, 1), (41, 2), (1000, 50), (2000, 50)])
def test_a_curve_has_twenty_points_or_all_steps(steps, every, tmp_path):
    assert make(tmp_path, max_steps=steps, logging_steps=50).log_every == every


def test_the_last_step_is_logged_evaluated_and_saved(tmp_path, monkeypatch):
    """Also where it is no multiple of what the settings say."""
    monkeypatch.setattr(looping, "POINTS", 1)
    evaluated = []
    loop = make(tmp_path, evaluate=scored([0] * 4, evaluated), logging_steps=3, eval_steps=3, save_steps=3)
    loop.fit()
    assert [row["step"] for row in loop.history if "loss" in row] == evaluated == [3, 4]
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["step-00000004", "step-00000003"]


def test_a_second_interrupt_ends_the_process_at_once(tmp_path):
    """The first one is waited for until the end of the step."""
    loop, real, waited = make(tmp_path), Loop.train_step, []

    def train_step(batch):
        signal.raise_signal(signal.SIGINT)
        waited.append(True)
        signal.raise_signal(signal.SIGINT)
        return real(loop, batch)

    loop.train_step = train_step
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores SIGINT
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.fit()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert waited and loop.step == 0


def test_an_interrupt_in_the_step_that_ends_training_is_not_lost(tmp_path):
    class Enough(Callback):
        def on_step_end(self, state, scalars):
            signal.raise_signal(signal.SIGINT)
            state.stop = True

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, callbacks=[Enough()]).fit()
    finally:
        signal.signal(signal.SIGINT, before)
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["step-00000001"]


@pytest.mark.parametrize("event", ["on_step_end", "on_log"])
def test_a_run_that_a_callback_ends_is_evaluated_at_its_end(tmp_path, event):
    """The steps since the last evaluation count as in a run that has done all; a score that is NaN is the worst."""

    class Enough(Callback):
        pass

    def ends(self, state, given):
        state.stop = state.step == 5

    setattr(Enough, event, ends)
    scores = iter([float("nan"), 0.5])
    loop = make(
        tmp_path,
        callbacks=[Enough()],
        evaluate=lambda *_: {"test_accuracy": next(scores)},
        best_score="test_accuracy",
        max_steps=12,
        eval_steps=4,
        logging_steps=5,
    )
    loop.fit()
    assert (loop.step, loop.best_step, loop.best) == (5, 5, 0.5)
    assert [row["step"] for row in loop.history if "test_accuracy" in row] == [4, 5]


def test_random_numbers_are_a_function_of_seed_step_and_process(tmp_path):
    def drawn(**settings):
        loop = make(tmp_path, **settings)
        for batch in loop.batches(0):
            loop.train_step(batch)
        return [u for _, u in loop.inner.seen]

    one, again, seed, process = drawn(), drawn(), drawn(seed=1), drawn(process=1)
    assert one == again and len({*one, *seed, *process}) == 12


def test_only_large_gradients_are_clipped(tmp_path):
    """The gradient of the first step is (1, 1, 1), its norm 3^0.5; SGD's first step is 1 + 0.9 times rate times
    gradient."""
    for clip, scale in ((None, 1.0), (10.0, 1.0), (0.5, 0.5 / 3**0.5)):
        loop = make(tmp_path, max_grad_norm=clip)
        loop.train_step(next(loop.batches(0)))
        torch.testing.assert_close(loop.inner.net.weight, torch.full((1, 3), 1 - 0.19 * scale))


def scored(scores: list, evaluated: list):
    """Evaluation `n` gives scores[n]; notes the steps, and leaves the network as evaluations do: in eval mode."""

    def evaluate(objective, step):
        evaluated.append(step)
        objective.eval()
        return {"score": scores[step - 1]}

    return evaluate


@pytest.mark.parametrize(
    "scores, stop, best",
    [
        ([1, 3, 2, 2, 9, 9], 4, 2),
        ([3, 3, 3, 9, 9, 9], 3, 3),  # an equal score is no better one, but the later of equals is kept
        ([1, 2, 3, 4, 5, 6], 6, 6),
    ],
)
def test_early_stopping_goes_on_where_it_was(scores, stop, best, tmp_path):
    """Killed after any step, a resumed run stops at the same step with the same best weights."""
    settings = dict(max_steps=6, early_stopping=2, best_score="score", save_total_limit=9)
    for killed in range(stop):
        steps, folder = [], tmp_path / str(killed)
        (folder / "checkpoints").mkdir(parents=True)
        if killed:
            loop = make(folder, evaluate=scored(scores, steps), **settings)
            loop.guard.total.fill_(5)
            loop.batches = lambda start, real=loop.batches: iter(list(real(start))[:killed])
            with pytest.raises(StopIteration):
                loop.fit()
        loop = make(folder, evaluate=scored(scores, steps), resume=True, **settings)
        loop.fit()
        assert steps == list(range(1, stop + 1)) and loop.inner.training
        assert (loop.step, loop.best_step, loop.best) == (stop, best, scores[best - 1])
        assert int(loop.guard.total) == (5 if killed else 0)
        weights = loop.best_weights["weight"].clone()
        if killed == 0:
            expected = weights
        assert torch.equal(weights, expected)
        loop.take_best()
        assert torch.equal(loop.inner.net.weight, expected)


@pytest.mark.parametrize("scores, best", [([2, 2, 2, 1, 1], 0), ([2, 2, 3, 3, 1], 3), ([1, 2, 2, 2, 2], 4)])
def test_the_weights_that_knew_their_classes_stay_unless_later_ones_score_higher(scores, best, tmp_path):
    """An equal score is no reason to give up what the frozen features know; of later equals the last is kept."""
    loop = make(tmp_path, evaluate=scored([*scores[1:], scores[0]], []), best_score="score")
    loop.known = True
    loop.fit()
    assert (loop.best_step, loop.best) == (best, max(scores))
    assert torch.equal(loop.best_weights["weight"], torch.ones(1, 3)) == (best == 0)


@pytest.mark.parametrize("late, raised", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (0, None)])
def test_a_signal_to_another_process_after_the_last_question_is_not_lost(late, raised, two, tmp_path, monkeypatch):
    """All is saved then; the launcher, and whoever waits for it, hear of it all the same."""
    loop = make(tmp_path, max_steps=2)
    monkeypatch.setattr("hf_lowlabel.training.loop.barrier", lambda: None)
    monkeypatch.setattr(StopSignals, "agreed", lambda self, step, device, ended=False: late if ended else 0)
    with pytest.raises(raised) if raised else contextlib.nullcontext():
        loop.fit()
    assert loop.step == 2 and [p.name for p in checkpoints(tmp_path / "checkpoints")][0] == "step-00000002"


def test_at_the_end_all_processes_are_asked_at_once(two):
    two([15, 0.0])
    signals = StopSignals(7)
    signals.due = 17
    assert signals.agreed(8, torch.device("cpu")) == 0
    assert signals.agreed(8, torch.device("cpu"), ended=True) == 15


def test_a_resumed_run_with_a_damaged_checkpoint_keeps_the_one_it_writes(tmp_path):
    def run(**more):
        loop = make(tmp_path, max_steps=6, save_total_limit=2, **more)
        loop.fit()
        return [p.name for p in checkpoints(tmp_path / "checkpoints")]

    assert run(save_steps=3) == ["step-00000006", "step-00000003"]
    (tmp_path / "checkpoints/step-00000006/objective.safetensors").write_bytes(b"")
    seen = []

    class Looks(Callback):
        def on_save(self, state):
            seen.append([p.name for p in checkpoints(tmp_path / "checkpoints")])

    with pytest.warns(UserWarning, match="step-00000006 is damaged"):
        run(save_steps=4, resume=True, callbacks=[Looks()])
    assert seen == [["step-00000004", "step-00000003"], ["step-00000006", "step-00000004"]]


def test_a_run_stopped_early_is_at_its_end_until_more_steps_are_asked_for(tmp_path):
    """Its end is kept, as one checkpoint of no more than the limit; with more steps it is patient anew."""

    def run(scores, **more):
        own = dict(best_score="score", early_stopping=2, save_steps=100, save_total_limit=1)
        loop = make(tmp_path, evaluate=scored(scores, evaluated := []), **own, **more)
        loop.save_run, loop.identity = lambda loop: None, {"settings": {"max_steps": loop.steps}, "data": {}}
        loop.fit()
        return evaluated, [p.name for p in checkpoints(tmp_path / "checkpoints")]

    assert run([1, 0, 0], max_steps=6) == ([1, 2, 3], ["step-00000003"])
    assert run([], max_steps=6, resume=True) == ([], ["step-00000003"])
    assert run([1, 0, 0, 0, 0], max_steps=12, resume=True) == ([4, 5], ["step-00000005"])


def test_the_seconds_of_all_parts_are_counted(tmp_path):
    loop = make(tmp_path, max_steps=2)
    loop.fit()
    loop.seconds = 1000.0
    loop.save()
    again = make(tmp_path, max_steps=2, resume=True)
    again.fit()
    assert 1000 <= again.seconds < 1100


def test_killed_before_its_first_checkpoint_a_run_starts_its_log_anew(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 9.0}\n{"step": 2, "lo')
    loop = make(tmp_path, resume=True)
    loop.fit()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [row["step"] for row in loop.history] == [1, 2, 3, 4] and rows[0][
        "loss"
    ] == 3


@pytest.fixture
def two(monkeypatch):
    """Pretend that there is a second process: `two(value)` is what it brings to the next agreement."""
    said = []

    def all_reduce(x, op):
        other = torch.as_tensor(said.pop(), dtype=x.dtype).expand_as(x)
        x.copy_({dist.ReduceOp.MIN: torch.minimum, dist.ReduceOp.MAX: torch.maximum}[op](x, other))

    monkeypatch.setattr(dist, "all_reduce", all_reduce)

    def begin(*values):
        for module in ("loop", "stopping"):
            monkeypatch.setattr(f"hf_lowlabel.training.{module}.world", lambda: 2)
        said.extend(values)

    return begin


@pytest.mark.parametrize("other", [0, 1])
def test_a_bad_loss_on_one_process_skips_the_step_on_all(other, two, tmp_path):
    loop = make(tmp_path)
    two(other)
    loop.train_step(next(loop.batches(0)))
    assert int(loop.guard.total) == 1 - other
    assert torch.equal(loop.inner.net.weight, torch.ones(1, 3)) == (other == 0)


@pytest.mark.parametrize(
    "seconds, other, asked",
    [(0.01, 0.0, [8, 18, 28]), (0.3, 0.0, [8, 14, 20, 26]), (0.01, 1.0, [8, 10, 12]), (4.0, 0.0, [8, 9, 10, 11])],
)
def test_a_signal_to_one_process_stops_all_at_the_same_step(seconds, other, asked, two, monkeypatch):
    """They ask each other every ten steps, or about every two seconds where the slowest one's steps take longer."""
    now = [100.0]
    monkeypatch.setattr("hf_lowlabel.training.stopping.time", SimpleNamespace(perf_counter=lambda: now[0]))
    said = [*[[0, other]] * (len(asked) - 1), [15, other]]
    two(*reversed(said))
    signals, answers = StopSignals(7), {}  # a run that goes on
    for step in range(8, asked[-1] + 1):
        now[0] += seconds
        answers[step] = signals.agreed(step, torch.device("cpu"))
        assert signals.asked == max(at for at in asked if at <= step)
    assert answers == {step: 15 * (step == asked[-1]) for step in answers}


def test_gradients_are_exchanged_with_the_last_micro_batch(two, tmp_path, monkeypatch):
    loop, said = make(tmp_path, gradient_accumulation_steps=2, batch_size=2), []

    class Wrapped:
        def __call__(self, batch, t):
            said.append(batch["x"].shape[0])
            return loop.inner(batch, t)

        @contextlib.contextmanager
        def no_sync(self):
            said.append("alone")
            yield
            said.append("together")

    loop.objective = Wrapped()
    two(1)
    out = loop.train_step(next(loop.batches(0)))
    assert said == ["alone", 1, "together", 1] and float(out["loss"]) == 3  # 1 + 1 + 1: what is logged is their mean


@pytest.mark.parametrize("good, stop", [((), 3), ((2,), 5), ((1, 3), 6)])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda loss: loss * float("nan"),
        lambda loss: loss + float("nan"),  # its gradient is finite
        lambda loss: loss + (0 * loss).sqrt(),  # finite itself, and its gradient is not
    ],
)
def test_bad_steps_in_a_row_are_counted_to_the_step(spoil, good, stop, tmp_path):
    """The third in a row ends the run; a good one between starts the count anew, whether rows are logged or not."""
    for logging_steps in (1, stop):
        loop = make(tmp_path, max_steps=9, max_bad_steps=3, logging_steps=logging_steps)
        real = loop.inner.forward

        def forward(batch, t):
            loss = real(batch, t)["loss"]
            return {"loss": loss if loop.step + 1 in good else spoil(loss)}

        loop.inner.forward = forward
        with pytest.raises(UserError, match=f"3 steps in a row up to step {stop}"):
            loop.fit()


@pytest.mark.parametrize("steps, stops", [(4, False), (4, True), (1, False)])
def test_a_run_without_any_good_step_is_no_result(steps, stops, tmp_path):
    """Shorter than what stops a long one, or ended early; the hint names a checkpoint that is there, or none."""
    loop = make(tmp_path, Toy(float("nan")), max_steps=steps, save_steps=2)
    if stops:
        loop.callbacks = [Stops()]
    with pytest.raises(Diverged, match=f"in all {2 if stops else steps} steps.*where the method is your own") as error:
        loop.fit()
    named = re.findall(r"--init-from (\S+)", str(error.value))
    assert len(named) == (steps > 1 and not stops) and all(Path(name).is_dir() for name in named)


def test_one_good_step_is_a_run(tmp_path):
    loop = make(tmp_path)
    real = loop.inner.forward
    loop.inner.forward = lambda batch, t: {"loss": real(batch, t)["loss"] * (1 if loop.step == 1 else float("nan"))}
    loop.fit()
    assert int(loop.guard.total) == 3


@pytest.mark.parametrize(
    "value, found",
    [
        (np.array(2.0), 2),
        (np.float64(2), 2),
        (np.int64(2), 2),
        (Fraction(1, 4), 0.25),
        (2**70, 2.0**70),
        (True, 1),
        (torch.tensor(2), 2),
    ],
)
def test_a_number_to_log_may_be_of_any_library(value, found, tmp_path):
    loop = make(tmp_path)
    out = scalars_of(loop.inner, {"loss": torch.zeros((), requires_grad=True), "p": value})
    assert out["p"].dim() == 0 and out["p"].item() == found


@pytest.mark.parametrize(
    "make_out, words",
    [
        (lambda loss: loss, 'returned a Tensor of shape .*: forward has to return a dict with "loss", a scalar'),
        (lambda loss: None, "returned None: forward has to"),
        (lambda loss: {"los": loss}, "returned a dict of los: forward has to"),
        (lambda loss: {"loss": loss.expand(4)}, r"loss of Toy is a Tensor of shape \(4,\): .* Take the mean"),
        (lambda loss: {"loss": 0.5}, "loss of Toy is 0.5: forward has to"),
        (lambda loss: {"loss": loss.detach()}, "loss of Toy needs no gradient: .* without no_grad, detach or item"),
        (lambda loss: {"loss": loss, "p": loss.expand(3)}, r"'p' of the forward of Toy is a Tensor of shape \(3,\)"),
        (lambda loss: {"loss": loss, "p": "a"}, "'p' of the forward of Toy is 'a'"),
        (lambda loss: {"loss": loss, "p": np.array("a")}, "'p' of the forward of Toy is an array of shape"),
        (lambda loss: {"loss": loss, "p": 10**400}, "'p' of the forward of Toy is 1000.*is one number"),
        (lambda loss: {"loss": loss, 1: 2.0}, "Toy returned a dict with 1 for a name. .* by text"),
        (lambda loss: {"loss": loss, None: 2.0}, "Toy returned a dict with None for a name"),
    ],
)
def test_what_a_forward_returns_is_checked(make_out, words, tmp_path):
    loop = make(tmp_path)
    real = loop.inner.forward
    loop.inner.forward = lambda batch, t: make_out(real(batch, t)["loss"])
    with pytest.raises(UserError, match=words):
        loop.fit()


def test_numbers_beside_the_loss_are_logged(tmp_path):
    loop = make(tmp_path)
    real = loop.inner.forward
    loop.inner.forward = lambda batch, t: {**real(batch, t), "share": 0.25, "count": 3}
    loop.fit()
    assert all((row["share"], row["count"]) == (0.25, 3) for row in loop.history)


def test_a_checkpoint_of_a_method_whose_code_has_changed_is_refused(tmp_path):
    make(tmp_path, max_steps=2).fit()
    changed = Toy()
    changed.register_buffer("queue", torch.zeros(3))
    with pytest.raises(UserError, match="step-00000002 has other tensors than the method has now.*--init-from"):
        make(tmp_path, changed, resume=True).fit()


class Stops(Callback):
    def on_step_end(self, state, scalars):
        state.stop = state.step == 2


class Roles(Objective):
    """A body with a weight that decays and one that does not, a head, and a part whose rate is fixed."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.fixed = nn.Linear(2, 2), nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)

    def param_groups(self):
        return {
            "base": [*self.body.parameters()],
            "head": [*self.head.parameters()],
            "fixed": [*self.fixed.parameters()],
        }


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_every_weight_has_its_rate_and_decay(name):
    net = Roles()
    args = TrainingArguments(optimizer=name, weight_decay=0.3, head_lr=10.0)
    optimizer = build_optimizer(net, args, 0.2)
    set_learning_rate(optimizer, 0.5)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert found == {
        id(net.body.weight): (0.1, 0.3),
        id(net.body.bias): (0.1, 0),
        id(net.head.weight): (1, 0.3),
        id(net.fixed.weight): (0.2, 0.3),
    }


def test_the_last_layer_is_the_head():
    model = create_classifier("cnn6_16", 3, pretrained=False)
    groups = Supervised(model).param_groups()
    head = {id(p) for p in model.timm_model.fc.parameters()}
    assert {id(p) for p in groups["head"]} == head
    assert {id(p) for p in groups["base"]} == {id(p) for p in model.parameters()} - head


def test_lars_adapts_weights_without_decay_too():
    """The step of a weight is trust * |w| / |g| * g, of a bias g, also where nothing decays (timm would tie the
    two)."""
    net = Roles()
    optimizer = build_optimizer(net, TrainingArguments(optimizer="lars", weight_decay=0.0, head_lr=1.0), 1.0)
    weight, bias = net.body.weight.detach().clone(), net.body.bias.detach().clone()
    for p in net.parameters():
        p.grad = torch.full_like(p, 3.0)
    optimizer.step()
    moved = weight - net.body.weight
    torch.testing.assert_close(moved, torch.full_like(moved, 0.001 * float(weight.norm()) / 2))  # |g| = 6, g = 3
    torch.testing.assert_close(net.body.bias, bias - 3)


@pytest.mark.parametrize("way", ["_on_host", "_on_device"])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_lars_is_timms(way, decay, monkeypatch):
    """Six steps of both on the same gradients, weights of all layouts, one of zeros, one without a gradient."""
    from timm.optim import Lars as Timms

    from hf_lowlabel.training import lars

    monkeypatch.setattr(lars, "_on_host", getattr(lars, way))
    random = torch.Generator().manual_seed(0)
    shapes = [(8, 3, 3, 3), (8, 4), (5, 7), (3, 3), (8,), (8,)]

    def weights():
        made = [torch.randn(s, generator=random.manual_seed(1)) for s in shapes]
        made[0] = made[0].to(memory_format=torch.channels_last)
        made[2] = torch.zeros(shapes[2])
        return [torch.nn.Parameter(w) for w in made]

    def groups(ps, flag):
        some = dict(params=ps[:4], weight_decay=decay, **{flag: True})
        return [some, dict(params=ps[4:], weight_decay=0.0, **{flag: False})]

    ours, theirs = weights(), weights()
    mine, other = lars.Lars(groups(ours, "adapts"), lr=0.5), Timms(groups(theirs, "always_adapt"), lr=0.5, momentum=0.9)
    for step in range(6):
        for optimizer in (mine, other):
            for group in optimizer.param_groups:
                group["lr"] = 0.5 / (1 + step)
        for a, b in zip(ours, theirs, strict=True):
            b.grad = torch.randn(a.shape, generator=random).contiguous(memory_format=torch.preserve_format)
            a.grad = torch.empty_like(a).copy_(b.grad)
        if step < 5:
            ours[3].grad = theirs[3].grad = None
        mine.step()
        other.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert not torch.equal(ours[2], torch.zeros(shapes[2]))


def test_a_run_inside_a_trial_says_no_more_than_the_trial():
    log = logging.getLogger("hf_lowlabel")
    with unsaid(log.name, logging.ERROR):
        logging_level(True)
        assert log.level == logging.ERROR
    logging_level(True)
    assert log.level == logging.INFO


@pytest.mark.parametrize("dry", [True, False])
def test_what_a_signal_ends_is_said_to_be_saved_where_it_is(dry, tmp_path, caplog):
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit):
            make(tmp_path, callbacks=[Signals(1)], dry_run=dry, max_steps=2).fit()
    finally:
        signal.signal(signal.SIGTERM, before)
    said = [record.getMessage() for record in caplog.records if "stopped by" in record.getMessage()]
    assert said == ["stopped by SIGTERM at step 1 of 2" + ("" if dry else "; saved")]


class Ends(Callback):
    """Sets `stop` when it is told of an event at step 3."""

    def __init__(self, event):
        setattr(self, event, self.end)

    def end(self, state, *_):
        state.stop = state.stop or state.step == 3


class Signals(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, state, scalars):
        if state.step == self.step:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("event", ["early stopping", "on_step_end", "on_log", "on_evaluate", "on_save"])
def test_the_end_that_was_decided_when_a_signal_came_stays_decided(event, tmp_path):
    """By early stopping or by a callback: a resumed run trains no step more than one that was never stopped."""
    ends = [] if event == "early stopping" else [Ends(event)]

    def run(name, *callbacks, **more):
        own = dict(max_steps=6, save_steps=3, best_score="score", early_stopping=9 if ends else 2)
        scores = scored([1, 0, 0, 9, 9, 9], evaluated := [])
        (tmp_path / name).mkdir(exist_ok=True)
        return make(tmp_path / name, callbacks=callbacks, evaluate=scores, **own, **more), evaluated

    whole, evaluated = run("whole", *ends)
    whole.fit()
    assert whole.step == 3 and evaluated == [1, 2, 3]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit):
            run("cut", *ends, Signals(3))[0].fit()
    finally:
        signal.signal(signal.SIGTERM, before)
    again, evaluated = run("cut", *ends, resume=True)
    again.fit()
    assert (again.step, again.best, again.best_step, evaluated) == (3, 1, 1, [])
    assert torch.equal(again.inner.net.weight, whole.inner.net.weight)
    rows, expected = ([{**row, "steps_per_second": 0} for row in loop.history] for loop in (again, whole))
    assert rows == expected


def test_a_score_of_nothing_has_no_sign(caplog):
    network = torch.nn.Linear(1, 1)
    kept = dict(best_weights=network.state_dict(), best_step=20, best_score="sel", best=-0.0)
    Loop.take_best(SimpleNamespace(inner=SimpleNamespace(evaluated=network), **kept))
    assert "took the weights of step 20 (sel 0)" in caplog.text


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is something else to seed")
def test_the_seed_of_a_step_is_torch_s_and_costs_a_cpu_nothing(monkeypatch):
    """torch.manual_seed formats the stack for each accelerator that is not there: milliseconds a step."""
    with monkeypatch.context() as patch:
        patch.setattr("traceback.format_stack", None)
        seed_everything(3, 5, 1)
    ours = torch.rand(4)
    torch.manual_seed((3 * 1_000_003 + 5) * 4096 + 1)
    assert torch.equal(ours, torch.rand(4))

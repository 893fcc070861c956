"""The loop alone, around a network of three weights: what each step is given, how it may stop, what a resume brings back."""
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_lowlabel.config import FinetuneConfig, PretrainConfig
from hf_lowlabel.objective import Objective
from hf_lowlabel.training.loop import Loop
from hf_lowlabel.training.optim import build_optimizer, set_learning_rate
from hf_lowlabel.training.setup import start_accelerator


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


def make(folder, objective=None, process=0, evaluate=None, keep_best=None, **settings) -> Loop:
    default = dict(dataset="digits", num_labels=1, method="supervised", optimizer="sgd", lr=0.1, weight_decay=0.0, schedule="linear",
                   warmup=0.0, max_steps=4, log_every=1, save_every=1, eval_every=1)
    config = FinetuneConfig(**{**default, **settings}).resolved()

    def batches(start):
        return iter([{"x": torch.full((2, 3), 1.0 + step)} for step in range(start, config.max_steps)])

    accelerator = start_accelerator(config, folder)
    if process:
        accelerator = SimpleNamespace(device=accelerator.device, process_index=process, is_main_process=False,
                                      autocast=accelerator.autocast)
    return Loop(objective or Toy(), batches, config, folder, accelerator=accelerator, lr=config.lr, evaluate=evaluate,
                keep_best=keep_best)


def test_progress_and_rate_of_each_step(tmp_path):
    """Step n of N works at t = n / N: the first one at 0, none at 1."""
    loop = make(tmp_path)
    loop.fit()
    assert [t for t, _ in loop.inner.seen] == [0, 0.25, 0.5, 0.75]
    assert [row["lr"] for row in loop.history] == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_random_numbers_are_a_function_of_seed_step_and_process(tmp_path):
    def drawn(**settings):
        loop = make(tmp_path, **settings)
        for batch in loop.batches(0):
            loop.train_step(batch)
        return [u for _, u in loop.inner.seen]

    one, again, seed, process = drawn(), drawn(), drawn(seed=1), drawn(process=1)
    assert one == again and len({*one, *seed, *process}) == 12


def test_only_large_gradients_are_clipped(tmp_path):
    """The gradient of the first step is (1, 1, 1), its norm 3^0.5; SGD's first step is 1 + 0.9 times rate times gradient."""
    for clip, scale in ((None, 1.0), (10.0, 1.0), (0.5, 0.5 / 3**0.5)):
        loop = make(tmp_path, clip_norm=clip)
        loop.train_step(next(loop.batches(0)))
        torch.testing.assert_close(loop.inner.net.weight, torch.full((1, 3), 1 - 0.19 * scale))


def scored(scores: list, evaluated: list):
    """Evaluation `n` gives scores[n]; notes the steps, and leaves the network as evaluations do: in eval mode."""

    def evaluate(objective, step):
        evaluated.append(step)
        objective.eval()
        return {"score": scores[step - 1]}

    return evaluate


@pytest.mark.parametrize("scores, stop, best", [
    ([1, 3, 2, 2, 9, 9], 4, 2),
    ([3, 3, 3, 9, 9, 9], 3, 3),  # an equal score is no better one, but the later of equals is kept
    ([1, 2, 3, 4, 5, 6], 6, 6),
])
def test_early_stopping_goes_on_where_it_was(scores, stop, best, tmp_path):
    """Killed after any step, a resumed run stops at the same step with the same best weights."""
    settings = dict(max_steps=6, early_stopping=2, keep_best="score", keep_checkpoints=9)
    for killed in range(stop):
        steps, folder = [], tmp_path / str(killed)
        (folder / "checkpoints").mkdir(parents=True)
        if killed:
            loop = make(folder, evaluate=scored(scores, steps), **settings)
            loop.guard.total.fill_(5)
            loop.batches = lambda start, real=loop.batches: iter(list(real(start))[:killed])
            with pytest.raises(StopIteration):
                loop.fit()
        loop = make(folder, evaluate=scored(scores, steps), **settings)
        loop.fit(resume=True)
        assert steps == list(range(1, stop + 1)) and loop.inner.training
        assert (loop.step, loop.best_step, loop.best) == (stop, best, scores[best - 1])
        assert int(loop.guard.total) == (5 if killed else 0)
        weights = loop.best_weights["weight"].clone()
        if killed == 0:
            expected = weights
        assert torch.equal(weights, expected)
        loop.take_best()
        assert torch.equal(loop.inner.net.weight, expected)


def test_the_seconds_of_all_parts_are_counted(tmp_path):
    loop = make(tmp_path, max_steps=2)
    loop.fit()
    loop.seconds = 1000.0
    loop.save()
    again = make(tmp_path, max_steps=2)
    again.fit(resume=True)
    assert 1000 <= again.seconds < 1100


class Roles(Objective):
    """A body with a weight that decays and one that does not, a head, and a part whose rate is fixed."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.fixed = nn.Linear(2, 2), nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)

    def param_groups(self):
        return {"base": [*self.body.parameters()], "head": [*self.head.parameters()], "fixed": [*self.fixed.parameters()]}


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_every_weight_has_its_rate_and_decay(name):
    net = Roles()
    config = PretrainConfig(dataset="digits", optimizer=name, weight_decay=0.3, head_lr=10.0)
    optimizer = build_optimizer(net, config, lr=0.2)
    set_learning_rate(optimizer, 0.5)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert found == {id(net.body.weight): (0.1, 0.3), id(net.body.bias): (0.1, 0), id(net.head.weight): (1, 0.3),
                     id(net.fixed.weight): (0.2, 0.3)}


def test_lars_adapts_weights_without_decay_too():
    """The step of a weight is trust * |w| / |g| * g, of a bias g, also where nothing decays (timm would tie the two)."""
    net = Roles()
    optimizer = build_optimizer(net, PretrainConfig(dataset="digits", optimizer="lars", weight_decay=0.0, head_lr=1.0), lr=1.0)
    weight, bias = net.body.weight.detach().clone(), net.body.bias.detach().clone()
    for p in net.parameters():
        p.grad = torch.full_like(p, 3.0)
    optimizer.step()
    moved = weight - net.body.weight
    torch.testing.assert_close(moved, torch.full_like(moved, 0.001 * float(weight.norm()) / 2))  # |g| = 6, g = 3
    torch.testing.assert_close(net.body.bias, bias - 3)

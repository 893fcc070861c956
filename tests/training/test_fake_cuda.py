"""Every step and every view on a pretended CUDA device: torch follows shapes, types and devices and computes nothing.

What a CPU run cannot show breaks here without a GPU: an operation between tensors of two devices, a value the host asks
for in the middle of a step. Gradients are zeros, since the engine behind `backward` wants a real device.
"""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from hf_lowlabel.arguments import Config, TrainingArguments
from hf_lowlabel.methods import find, methods_for
from hf_lowlabel.objective import build_objective
from hf_lowlabel.pretraining.l2_sp import L2SP
from hf_lowlabel.settings import resolve
from hf_lowlabel.training.loop import Loop
from hf_lowlabel.views.counter_rng import uniforms
from hf_lowlabel.views.joint import JointView
from hf_lowlabel.views.table import VIEWS, build_view

for folder in ("finetuning", "pretraining"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
finetuning, pretraining, segmenting = (
    importlib.import_module(name) for name in ("finetuning_stand_in", "pretraining_stand_in", "segmenter_stand_in")
)
SEGMENTATION = [n for n in methods_for("finetune") if "segmentation" in find(n).tasks]
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a real CUDA device is tested elsewhere")


class Fake(FakeTensorMode):
    """Tensors and modules of the CPU, pretended to lie on a GPU."""

    def tensor(self, x):
        if torch.is_tensor(x):
            return self.from_tensor(x).detach().to("cuda")
        if isinstance(x, dict):
            return {k: self.tensor(v) for k, v in x.items()}
        return [self.tensor(v) for v in x]

    def module(self, module: nn.Module) -> nn.Module:
        params, buffers = {}, {}
        for m in module.modules():
            for k, p in m._parameters.items():
                if p is not None:
                    fake = params.setdefault(id(p), nn.Parameter(self.tensor(p), requires_grad=p.requires_grad))
                    m._parameters[k] = fake
            for k, b in m._buffers.items():
                if b is not None:
                    m._buffers[k] = buffers.setdefault(id(b), self.tensor(b))
        module.to = lambda *args, **kwargs: module  # swaps tensors, which the pretended ones refuse
        return module


@pytest.fixture
def fake(monkeypatch):
    """The mode, with what needs a real device replaced: gradients are zeros, memory is never pinned."""

    def grad(outputs, inputs, *args, **kwargs):
        return tuple(torch.zeros_like(x) for x in (inputs if isinstance(inputs, (list, tuple)) else [inputs]))

    monkeypatch.setattr(torch.autograd, "grad", grad)
    monkeypatch.setattr(torch, "_sample_dirichlet", lambda a: a / a.sum(1, keepdim=True))  # has no pretended form
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *args: self)
    return Fake()


def steps(fake: Fake, monkeypatch, objective, batches: list[dict], args: TrainingArguments) -> None:
    """Train steps as the loop takes them on a GPU."""
    with fake:
        fake.module(objective)
        accelerator = SimpleNamespace(
            device=torch.device("cuda"), process_index=0, is_main_process=True, autocast=lambda: torch.enable_grad()
        )
        loop = Loop(objective, None, args, Path(), accelerator=accelerator, base_learning_rate=0.1)

        for group in loop.optimizer.param_groups:
            group["fused"] = False  # has no pretended form

        def backward(self, *args, **kwargs):
            assert self.device.type == "cuda" and self.requires_grad
            for p in loop.params:
                p.grad = torch.zeros_like(p)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        with monkeypatch.context() as m:
            m.setattr(loop.guard, "lets_through", lambda ok: True)  # the first step of a run asks the host
            loop.train_step(fake.tensor(batches[0]))
        for batch in batches[1:]:
            out = loop.train_step(fake.tensor(batch))
    assert {v.device.type for v in out.values() if torch.is_tensor(v)} == {"cuda"}


SETTINGS = dict(max_steps=10, dataset="digits", model="resnet10t", output_dir="none", max_grad_norm=1.0)


def settings(verb: str, name: str, **more) -> TrainingArguments:
    if find(name).prior == "must":
        more["prior"] = __file__  # is looked for, and not read
    return resolve(Config.from_flat(verb, {"method": name, **more, **SETTINGS})).training


@pytest.mark.parametrize(
    "name, optimizer",
    [
        *((name, "sgd") for name in finetuning.FINETUNE),
        ("fixmatch", "adamw"),
        *(pytest.param(name, "adamw", marks=pytest.mark.slow) for name in finetuning.FINETUNE if name != "fixmatch"),
    ],
)
def test_step_of_classification(name, optimizer, fake, monkeypatch):
    objective = finetuning.build(name, model=finetuning.TinyModel(norm=True))
    batches = [finetuning.make_batch(objective, step) for step in range(3)]
    steps(fake, monkeypatch, objective, batches, settings("finetune", name, optimizer=optimizer, learning_rate=1e-3))


@pytest.mark.parametrize("name", pretraining.PRETRAIN)
def test_step_of_pretraining(name, fake, monkeypatch):
    objective = L2SP(pretraining.make(name, norm=True), 0.1)
    batches = [pretraining.batch_for(objective, seed=step) for step in range(3)]
    steps(fake, monkeypatch, objective, batches, settings("pretrain", name))


@pytest.mark.parametrize("name", SEGMENTATION)
def test_step_of_segmentation(name, fake, monkeypatch):
    model = segmenting.TinySegmenter(norm=True)
    objective = build_objective(name, model, {}, num_classes=segmenting.K, num_images=3, num_labeled=2)
    batches = [segmenting.make_batch(step) for step in range(3)]
    steps(fake, monkeypatch, objective, batches, settings("finetune", name, task="segmentation"))


class Host:
    """A CPU tensor that is read as an array only, which the mode would not let a tensor be."""

    def __init__(self, tensor):
        self.array, self.shape = tensor.numpy(), tensor.shape

    def numpy(self):
        return self.array


@pytest.mark.parametrize("kind", VIEWS)
def test_view(kind, fake):
    view = build_view(kind, size=64, mean=(0.5,) * 3, std=(0.2,) * 3)
    u = Host(uniforms(0, "views", 0, 8, view.width))
    with fake:
        view.mean, view.std = fake.from_tensor(view.mean), fake.from_tensor(view.std)
        out = torch.empty(8, 3, view.crop.size, view.crop.size, device="cuda")
        view._fill(out, torch.empty(8, 3, 80, 80, dtype=torch.uint8, device="cuda"), u.numpy())


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_view_with_a_mask(kind, fake):
    view = JointView({"image": kind}, size=(64, 96), mean=(0.5,) * 3, std=(0.2,) * 3)
    u, sizes = Host(uniforms(0, "views", 0, 8, view.width)), Host(torch.full((8, 2), 70))
    with fake:
        view.mean, view.std = fake.from_tensor(view.mean), fake.from_tensor(view.std)
        out = view(torch.empty(8, 4, 80, 80, dtype=torch.uint8, device="cuda"), sizes, u)
    assert {v.device.type for v in out.values()} == {"cuda"}


def test_what_it_would_find(fake):
    with fake:
        x = torch.empty(3, device="cuda")
        with pytest.raises(RuntimeError, match="device"):
            x + torch.empty(3)
        with pytest.raises(DataDependentOutputException):
            float(x.sum())

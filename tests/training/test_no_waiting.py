"""Between two rows of the log no step waits for the device, for every method; and every method runs in bf16.

On a CPU nothing waits, so here every operation of a step is looked at instead: those whose result goes to the host
(`.item()`, a boolean index, `.tolist()`, ...) and tensors made from Python values, which a step would have to copy
over.
"""

import traceback

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_lowlabel import api, load_source
from hf_lowlabel.methods import METHODS, find, verb_of
from hf_lowlabel.training.loop import Loop
from hf_lowlabel.training.priors import save_priors

from .conftest import SEGMENT
from .test_resume import NARROW

WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique",
    "_unique2",
    "unique_dim",
    "bincount",
    "is_nonzero",
    "equal",
    "lift_fresh",
}
HOST = ("tolist", "numpy", "cpu", "__array__")
CLASSIFICATION = [name for name in METHODS if "classification" in find(name).tasks and not find(name).frozen]
SEGMENTATION = [name for name in METHODS if "segmentation" in find(name).tasks]


class Waits(TorchDispatchMode):
    """Notes where a value would leave the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        if name in WAITS or any(torch.is_tensor(i) and i.dtype == torch.bool for i in indices):
            stack = "".join(traceback.format_stack(limit=8)[:-1])
            if (
                "torch/optim/" not in stack and "F.one_hot(" not in stack
            ):  # Adam counts on the host; one_hot asks on a CPU only
                self.found.append(f"{name}\n{stack}")
        return func(*args, **(kwargs or {}))


class Enough(Exception):
    """What comes after the steps is not looked at here."""


@pytest.fixture
def waits(monkeypatch):
    """All that waits inside a step from the second on; the first may make its buffers."""
    step, found = Loop.train_step, []

    def host(name):
        real = getattr(torch.Tensor, name)

        def noted(self, *args, **kwargs):
            found.append(f"{name}\n" + "".join(traceback.format_stack(limit=6)[:-1]))
            return real(self, *args, **kwargs)

        return noted

    def train_step(self, batch):
        if self.step == 0:
            return step(self, batch)
        if self.step == 3:
            raise Enough
        self.guard.on_host = False  # the way of a GPU
        with monkeypatch.context() as m, Waits() as mode:
            for name in HOST:
                m.setattr(torch.Tensor, name, host(name))
            out = step(self, batch)
        found.extend(mode.found)
        return out

    monkeypatch.setattr(Loop, "train_step", train_step)
    return found


@pytest.mark.parametrize("method", CLASSIFICATION)
def test_no_step_waits(method, tiny, few_images, tmp_path, waits):
    verb = verb_of(method)
    settings = dict(
        tiny[verb],
        method=method,
        method_args=NARROW.get(method, {}),
        max_steps=9,
        logging_steps=99,
        save_steps=99,
        precision="bf16",
    )
    if find(method).prior == "must":
        settings["prior"] = str(tmp_path / "priors.safetensors")
        source, rng = load_source("digits"), np.random.default_rng(0)
        save_priors(settings["prior"], rng.dirichlet(np.ones(10), len(source)), source.ids, source.class_names)
    with pytest.raises(Enough):
        getattr(api, verb)(**settings, output_dir=str(tmp_path / "run"))
    assert not waits, f"{len(waits)} in two steps, the first: {waits[0]}"


@pytest.mark.parametrize("method", SEGMENTATION)
def test_no_step_of_segmentation_waits(method, masked, tmp_path, waits):
    verb = verb_of(method)
    settings = dict(
        SEGMENT, dataset=str(masked), method=method, max_steps=9, logging_steps=99, save_steps=99, precision="bf16"
    )
    if verb == "pretrain":
        settings = {
            k: v for k, v in settings.items() if k not in ("architecture", "architecture_args", "scale", "num_labels")
        }
        settings["method_args"] = dict(hidden=16, out=8)
    with pytest.raises(Enough):
        getattr(api, verb)(**settings, output_dir=str(tmp_path / "run"))
    assert not waits, f"{len(waits)} in two steps, the first: {waits[0]}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", CLASSIFICATION)
def test_no_step_waits_on_cuda(method, tiny, few_images, tmp_path, monkeypatch):
    """CUDA's own detector, the making of the batches included."""
    step = Loop.train_step

    def train_step(self, batch):
        torch.cuda.set_sync_debug_mode("error" if 1 <= self.step < 4 else "default")
        return step(self, batch)

    monkeypatch.setattr(Loop, "train_step", train_step)
    if find(method).prior == "must":
        pytest.skip("needs priors")
    try:
        getattr(api, verb_of(method))(
            **dict(
                tiny[verb_of(method)],
                method=method,
                method_args=NARROW.get(method, {}),
                device="cuda",
                max_steps=5,
                logging_steps=99,
                save_steps=99,
            ),
            output_dir=str(tmp_path / "run"),
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")

"""Between two rows of the log no step waits for the device, for every method; and every method runs in bf16.

On a CPU nothing waits, so here every operation of a step is looked at instead: those whose result goes to the host
(`.item()`, a boolean index, `.tolist()`, ...) and tensors made from Python values, which a step would have to copy
over.
"""

import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_lowlabel.training import lars, loop
from hf_lowlabel.training.loop import Loop

from .conftest import RUNS

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
        monkeypatch.setattr(lars, "_on_host", lars._on_device)
        with monkeypatch.context() as m, Waits() as mode:
            for name in HOST:
                m.setattr(torch.Tensor, name, host(name))
            out = step(self, batch)
        found.extend(mode.found)
        return out

    monkeypatch.setattr(Loop, "train_step", train_step)
    return found


@pytest.mark.parametrize("verb, task, method", RUNS)
def test_no_step_waits(verb, task, method, start, tmp_path, waits):
    with pytest.raises(Enough):
        start(verb, task, method, tmp_path / "run", max_steps=9, logging_steps=99, save_steps=99, precision="bf16")
    assert not waits, f"{len(waits)} in two steps, the first: {waits[0]}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("verb, task, method", RUNS)
def test_no_step_waits_on_cuda(verb, task, method, start, tmp_path, monkeypatch):
    """CUDA's own detector, the making of the batches included."""
    step = Loop.train_step

    def train_step(self, batch):
        torch.cuda.set_sync_debug_mode("error" if 1 <= self.step < 4 else "default")
        return step(self, batch)

    monkeypatch.setattr(Loop, "train_step", train_step)
    monkeypatch.setattr(loop, "POINTS", 1)  # a short run would be logged at every step, for which the host waits
    try:
        start(verb, task, method, tmp_path / "run", device="cuda", max_steps=5, logging_steps=99, save_steps=99)
    finally:
        torch.cuda.set_sync_debug_mode("default")

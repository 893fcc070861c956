"""The one loop every method trains in.

    for step: seed -> forward (micro-batches) -> backward -> finite? -> optimizer -> after_step

Accelerate places devices, wraps DistributedDataParallel and precision. The order of images, the random state and the
checkpoints are ours, so that a resumed run is bit-identical to one that was never stopped.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from tqdm.auto import tqdm

from ..arguments import RunConfig
from ..distributed import all_mean, barrier, interactive, world
from ..errors import UserError
from ..objective import Objective
from .batches import micro_batches
from .checkpoint import load_newest, restore_optimizer, save_checkpoint
from .guard import NonFiniteGuard, finite
from .optim import build_optimizer, learning_rate, set_learning_rate
from .sync_batchnorm import synchronise

log = logging.getLogger("hf_lowlabel")


class Interrupted(SystemExit):
    """Training was asked to stop and saved a checkpoint first; the exit code is 130 (Ctrl-C) or 143 (SIGTERM)."""


class Loop:
    """Trains `objective` for `config.max_steps` steps.

    batches(start) yields the batches of this rank from step `start` on. evaluate(objective) returns scalars to log;
    `metric_for_best_model` names the one (higher is better) by which training may stop early and the best weights are kept, or None.
    on_save(loop) is called on the main process after every checkpoint. data: what the run trains on (fingerprint of the
    images, hash of the split); a resumed run must have the same.
    """

    def __init__(
        self,
        objective: Objective,
        batches: Callable[[int], Iterator[dict]],
        config: RunConfig,
        folder: Path,
        *,
        accelerator: Accelerator,
        learning_rate: float,
        evaluate: Callable[[Objective, int], dict] | None = None,
        metric_for_best_model: str | None = None,
        on_save: Callable[[Loop], None] | None = None,
        data: dict[str, str] | None = None,
    ):
        self.config, self.folder, self.accelerator, self.batches = config, folder, accelerator, batches
        self.evaluate, self.metric_for_best_model, self.on_save = evaluate, metric_for_best_model, on_save
        self.data = data or {}
        if getattr(config, "early_stopping", None) and not metric_for_best_model:
            raise UserError(
                f"found early_stopping {config.early_stopping}, and no score to stop by; expected validation images, or a "
                "method whose Sel is kept; fix: --validation N, or leave out --early-stopping"
            )
        device = accelerator.device
        objective.to(device)
        self.channels_last = config.channels_last
        if self.channels_last:
            objective.to(memory_format=torch.channels_last)
        if world() > 1:
            synchronise(objective, device)
        self.inner = objective
        self.optimizer = build_optimizer(objective, config, learning_rate)
        self.params = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.step, self.best, self.best_step, self.stale = 0, None, 0, 0
        self.best_weights: dict[str, torch.Tensor] = {}
        self.steps = 2 if config.dry_run else config.max_steps
        self.history: list[dict] = []
        self.seconds = 0.0
        if config.compile:
            objective.compile()
        self.objective = accelerator.prepare_model(objective) if world() > 1 else objective
        self.guard = NonFiniteGuard(objective, self.optimizer, device)
        self.signal = 0
        self.step_seconds = self.eval_seconds = 0.0
        self.save_steps = config.save_steps or max(100, self.steps // 10)
        self.eval_steps = 2 if config.dry_run else self.real_eval_every()

    # ---- one step -------------------------------------------------------------------------------------------------
    def train_step(self, batch: dict) -> dict[str, torch.Tensor]:
        """One optimizer step on this rank's share of the global batch; returns its scalars, still on the device."""
        t = self.step / self.steps
        parts = self.config.gradient_accumulation_steps
        seed_everything(self.config.seed, self.step, self.accelerator.process_index)
        set_learning_rate(self.optimizer, learning_rate(self.config.lr_scheduler_type, t, self.config.warmup_ratio))
        self.guard.before_forward()
        sums: dict[str, torch.Tensor] = {}
        for i, micro in enumerate(micro_batches(batch, parts)):
            last = i == parts - 1
            with contextlib.nullcontext() if last or world() == 1 else self.objective.no_sync():
                with self.accelerator.autocast():
                    out = self.objective(self.lay_out(micro), t)
                (out["loss"] / parts).backward()
            for name, value in out.items():
                sums[name] = sums.get(name, 0) + value.detach() / parts
        ok, norm = finite(sums["loss"], self.params)
        if world() > 1:
            flag = ok.float()
            dist.all_reduce(flag, op=dist.ReduceOp.MIN)
            ok = flag.bool()
        if self.config.max_grad_norm is not None:
            scale = (self.config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_([p.grad for p in self.params if p.grad is not None], scale)
        self.guard.apply(ok, lambda: self.update(t), first=not self.optimizer.state)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return {**sums, "grad_norm": norm}

    def update(self, t: float) -> None:
        self.optimizer.step()
        self.inner.after_step(t)

    def lay_out(self, batch):
        """Images in the memory layout of the network."""
        if not self.channels_last:
            return batch
        if isinstance(batch, dict):
            return {k: self.lay_out(v) for k, v in batch.items()}
        if isinstance(batch, list):
            return [self.lay_out(v) for v in batch]
        return batch.contiguous(memory_format=torch.channels_last) if batch.dim() == 4 else batch

    # ---- the run --------------------------------------------------------------------------------------------------
    def fit(self, resume: bool = False) -> None:
        """Train to the end. Raises Interrupted after Ctrl-C or SIGTERM, with a checkpoint on disk."""
        if resume:
            self.resume()
        bar = tqdm(total=self.steps, initial=self.step, disable=not interactive(), unit="step", dynamic_ncols=True)
        self.inner.train()
        before, begin, first = self.seconds, time.perf_counter(), self.step
        with self._signals(), bar:
            batches = self.batches(self.step) if self.step < self.steps else iter(())
            while self.step < self.steps:
                out = self.train_step(next(batches))
                bar.update()
                done = self.step == self.steps
                if self.config.dry_run:
                    self._clock()
                if self.step % self.config.logging_steps == 0 or done:
                    self.write_log(out, begin, first, bar)
                if self.evaluate and (self.step % self.eval_steps == 0 or done) and self.evaluated_enough():
                    break
                asked = self.asked_to_stop()
                if self.step % self.save_steps == 0 or asked or done:
                    self.seconds = before + time.perf_counter() - begin
                    self.save()
                if asked:
                    self._stop(asked)
            self.seconds = before + time.perf_counter() - begin

    def _clock(self) -> None:
        """Seconds of the latest step of a dry run; its second one is past all first-time costs."""
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.step_seconds, self._last = now - getattr(self, "_last", now), now

    def real_eval_every(self) -> int:
        return self.config.eval_steps or max(1, self.config.max_steps // 10)

    def write_log(self, out: dict, begin: float, first: int, bar) -> None:
        """Fetch this step's scalars (the only time the host waits for the device) and write them down."""
        values = all_mean(
            torch.stack([torch.as_tensor(v, dtype=torch.float32, device=self.accelerator.device) for v in out.values()])
        )
        row = {
            "step": self.step,
            **dict(zip(out, map(_number, values.tolist()), strict=True)),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        row["skipped"] = int(self.guard.total)
        row["steps_per_second"] = (self.step - first) / max(time.perf_counter() - begin, 1e-9)
        longest = int(self.guard.longest)
        self.record(row)
        if self.accelerator.is_main_process:
            left = (self.steps - self.step) / row["steps_per_second"]
            shown = "  ".join(
                f"{k} {'NaN' if v is None else format(v, '.4g')}"
                for k, v in row.items()
                if k in ("loss", "mask_ratio", "z_std", "train_accuracy")
            )
            bar.set_postfix_str(shown)
            if bar.disable:
                log.info(
                    "step %d/%d  %s  %.2f steps/s  %s left",
                    self.step,
                    self.steps,
                    shown,
                    row["steps_per_second"],
                    duration(left),
                )
        if longest >= self.config.max_bad_steps:
            raise UserError(
                f"the loss or its gradient was NaN or infinite {longest} steps in a row up to step {self.step}; no "
                "such step changed the model. Start a new run with a lower --lr, --max-grad-norm 1 or --precision fp32; --init-from "
                f"{self.folder}/checkpoints/step-N lets it start from this run's weights"
            )

    def record(self, row: dict) -> None:
        """Append to log.jsonl (main process) and hand the row to the trackers."""
        self.history.append(row)
        if self.accelerator.is_main_process:
            with open(self.folder / "log.jsonl", "a") as f:
                f.write(json.dumps(row) + "\n")
        self.accelerator.log({k: v for k, v in row.items() if k != "step"}, step=row["step"])

    def evaluated_enough(self) -> bool:
        """Evaluate and log; True when early stopping says so."""
        begin = time.perf_counter()
        scores = self.evaluate(self.inner, self.step)
        self.eval_seconds = time.perf_counter() - begin
        self.inner.train()
        if not scores:
            return False
        self.record({"step": self.step, **scores})
        if self.accelerator.is_main_process:
            log.info("step %d/%d  %s", self.step, self.steps, "  ".join(f"{k} {v:.4g}" for k, v in scores.items()))
        if self.metric_for_best_model is None:
            return False
        score = scores[self.metric_for_best_model]
        self.stale = 0 if self.best is None or score > self.best else self.stale + 1
        if self.best is None or score >= self.best:  # of equals the later: it has trained longer
            self.best, self.best_step = score, self.step
            self.best_weights = {k: v.detach().cpu().clone() for k, v in self.inner.evaluated.state_dict().items()}
        patience = getattr(self.config, "early_stopping", None)
        return patience is not None and self.stale >= patience

    # ---- checkpoints ----------------------------------------------------------------------------------------------
    def save(self) -> None:
        if self.accelerator.is_main_process:
            state = {
                "guard": self.guard.state_dict(),
                "best": self.best,
                "best_step": self.best_step,
                "stale": self.stale,
                "seconds": self.seconds,
                "config": _comparable(self.config),
                "data": self.data,
            }
            best = {f"best::{k}": v for k, v in self.best_weights.items()}
            save_checkpoint(
                self.folder / "checkpoints",
                self.step,
                {**self.inner.state_dict(), **best},
                self.optimizer,
                state,
                self.config.save_total_limit,
            )
            if self.on_save:
                self.on_save(self)
        barrier()

    def resume(self) -> None:
        """Go on from the newest whole checkpoint. Raises UserError when the run was made with other settings."""
        found = load_newest(self.folder / "checkpoints")
        if found is None:
            log.info("no checkpoint in %s yet: starting from step 0", self.folder)
            self._truncate_log(0)
            return
        path, tensors, optimizer, state = found
        changed = {
            k: (v, state["config"].get(k)) for k, v in _comparable(self.config).items() if state["config"].get(k) != v
        }
        if changed:
            listed = "; ".join(f"{k} was {old!r}, now {new!r}" for k, (new, old) in changed.items())
            raise UserError(
                f"cannot resume {path.name} with other settings: {listed}. Use the settings of the run, or "
                "--init-from to start a new run from its weights"
            )
        for what, value in self.data.items():
            if state["data"].get(what) != value:
                raise UserError(
                    f"cannot resume {path.name} on other data: its {what} was {str(state['data'].get(what))[:12]}, now "
                    f"{value[:12]}. Give the data of the run, or --init-from to start a new run from its weights"
                )
        self.best_weights = {k.removeprefix("best::"): tensors.pop(k) for k in list(tensors) if k.startswith("best::")}
        self.inner.load_state_dict(tensors)
        restore_optimizer(self.optimizer, optimizer, state["optimizer"])
        self.step, self.best, self.best_step = state["step"], state["best"], state["best_step"]
        self.stale, self.seconds = state["stale"], state["seconds"]
        self.guard.load_state_dict(state["guard"])
        self._truncate_log(self.step)
        log.info("resumed from %s", path.name)

    def take_best(self) -> None:
        """Put the weights of the best evaluation, where one was kept, into the network that is saved."""
        if self.best_weights:
            self.inner.evaluated.load_state_dict(self.best_weights)
            log.info("took the weights of step %d (%s %.4g)", self.best_step, self.metric_for_best_model, self.best)

    def _truncate_log(self, step: int) -> None:
        """Forget log rows of steps that are trained again, a half-written last line among them."""
        path = self.folder / "log.jsonl"
        rows = []
        for line in path.read_text().splitlines() if path.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        self.history = [row for row in rows if row["step"] <= step]
        if self.accelerator.is_main_process and path.exists():
            part = path.with_name(f".{path.name}.{os.getpid()}")
            part.write_text("".join(json.dumps(row) + "\n" for row in self.history))
            os.replace(part, path)

    # ---- interruption ---------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _signals(self):
        """The first Ctrl-C or SIGTERM asks for a stop at the end of the step; a second Ctrl-C ends the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number, frame):
            self.signal = number
            signal.signal(number, old[number])

        old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def asked_to_stop(self) -> int:
        """The signal every rank has agreed on, or 0. Ranks agree every 10 steps, since asking is a collective."""
        if world() == 1:
            return self.signal
        if self.step % 10:
            return 0
        flag = torch.tensor(self.signal, device=self.accelerator.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return int(flag)

    def _stop(self, number: int) -> None:
        if self.accelerator.is_main_process:
            log.warning(
                "stopped by %s at step %d of %d; saved. Go on with --resume",
                signal.Signals(number).name,
                self.step,
                self.steps,
            )
        raise Interrupted(128 + number)


def seed_everything(seed: int, step: int, rank: int) -> None:
    """torch's generators as a function of (seed, step, rank): dropout and mixing are the same after a resume."""
    value = (seed * 1_000_003 + step) * 4096 + rank
    torch.manual_seed(value % (2**63))


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    hours, rest = divmod(int(max(seconds, 0)), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def _number(value) -> float | None:
    """A float, or None where JSON has no word for it."""
    value = float(value)
    return value if math.isfinite(value) else None


_MAY_CHANGE = {
    "output_dir",
    "resume",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "eval_steps",
    "max_bad_steps",
    "report_to",
    "memory_budget",
    "workers",
    "dry_run",
    "push_to_hub",
    "hub_private",
    "device",
    "compile",
    "streaming",
    "early_stopping",
    "compare_supervised",
    "window",
}


def _comparable(config: RunConfig) -> dict:
    """The settings that decide what is computed: a resumed run must have the same."""
    from ..arguments import to_dict

    values = {k: v for k, v in to_dict(config).items() if k not in _MAY_CHANGE}
    return json.loads(json.dumps(values))

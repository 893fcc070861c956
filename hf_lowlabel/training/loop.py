"""The one loop every method trains in.

    for step: seed -> forward (micro-batches) -> backward -> finite? -> optimizer -> after_step

Accelerate places devices, wraps DistributedDataParallel and precision. The order of images, the random state and the
checkpoints are ours, so that a resumed run is bit-identical to one that was never stopped.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from tqdm.auto import tqdm

from ..arguments import TrainingArguments
from ..distributed import all_mean, barrier, interactive, world
from ..errors import UserError
from ..objective import Objective, scalars_of
from .batches import micro_batches
from .callbacks import Callback, RunState
from .checkpoint import checkpoints, load_newest, restore_optimizer, save_checkpoint, set_aside
from .guard import NonFiniteGuard, diverged, finite
from .journal import Journal, number, show
from .optim import build_optimizer, clip, learning_rate, longer, set_learning_rate
from .same_run import check_same
from .setup import across
from .stopping import StopSignals, stop
from .sync_batchnorm import several_images, synchronise

log = logging.getLogger("hf_lowlabel")
POINTS = 20  # of a curve, at least
DRY_STEPS = 2
KEEPS_STATISTICS = "keeps_statistics"  # mark of a BatchNorm layer that stays in eval mode; copies of a network keep it
KEPT = ("best", "best_step", "stale", "seconds")  # attributes that a checkpoint holds


class Loop:
    """Trains `objective` for `args.max_steps` steps.

    Args:
        objective: the method with its networks.
        batches: batches(start) yields the batches of this rank from step `start` on.
        args: the settings of training.
        folder: the run folder.
        base_learning_rate: the peak learning rate of the body.
        evaluate: evaluate(objective) returns scalars to log.
        layout: of images and convolutions in memory.
        best_score: which of them (higher is better) decides when training stops early and which weights are kept; None:
            no score does.
        known: the network knows its classes before the first step, and is evaluated there, too: it may be the best.
        save: save(loop) writes model and record; on the main process, after every checkpoint.
        identity: what the run is: settings and data that a resumed run must have again.
        start: called when all that may be refused is past, before anything is logged.
    """

    def __init__(
        self,
        objective: Objective,
        batches: Callable[[int], Iterator[dict]],
        args: TrainingArguments,
        folder: Path,
        *,
        accelerator: Accelerator,
        base_learning_rate: float,
        evaluate: Callable[[Objective], dict] | None = None,
        best_score: str | None = None,
        known: bool = False,
        save: Callable[[Loop], Any] | None = None,
        identity: dict[str, dict] | None = None,
        start: Callable[[], Any] | None = None,
        callbacks: Sequence[Callback] = (),
        layout: torch.memory_format = torch.channels_last,
        compile: bool = False,
    ):
        self.args, self.folder, self.accelerator, self.batches = args, folder, accelerator, batches
        self.evaluate, self.best_score, self.known, self.save_run, self.start = evaluate, best_score, known, save, start
        self.identity, self.callbacks = identity or {"settings": {}, "data": {}}, list(callbacks)
        if args.early_stopping and not best_score:
            raise UserError(
                f"early_stopping is {args.early_stopping}, and there is no score to stop by. Give --validation N, "
                "take a method whose Sel is kept, or leave out --early-stopping."
            )
        device = accelerator.device
        objective.to(device)
        self.layout = layout
        objective.to(memory_format=layout)
        # by name: on GPUs synchronised layers are new modules, without marks
        self.still = [name for name, m in objective.named_modules() if getattr(m, KEEPS_STATISTICS, False)]
        if world() > 1:
            synchronise(objective, device)
        self.inner = objective
        self.optimizer = build_optimizer(objective, args, base_learning_rate)
        self.params = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.step, self.best, self.best_step, self.stale = 0, None, 0, 0
        self.best_weights: dict[str, torch.Tensor] = {}
        self.steps = DRY_STEPS if args.dry_run else args.max_steps
        self.journal, self.seconds = Journal(folder, accelerator), 0.0
        if compile:
            objective.compile()
        self.objective = across(accelerator, objective)
        self.guard = NonFiniteGuard(objective, self.optimizer, device)
        self.step_seconds = self.eval_seconds = 0.0
        self.save_steps = args.save_steps or max(100, self.steps // 10)
        self.log_every = min(args.logging_steps, max(1, self.steps // POINTS))  # a curve of a short run too
        self.eval_steps = DRY_STEPS if args.dry_run else self.real_eval_steps()
        main = accelerator.is_main_process
        self.state = RunState(folder, objective, self.steps, history=self.journal.history, is_main_process=main)

    @property
    def history(self) -> list[dict]:
        return self.journal.history

    # ---- one step -------------------------------------------------------------------------------------------------
    def train_step(self, batch: dict) -> dict[str, torch.Tensor]:
        """One optimizer step on this rank's share of the global batch; returns its scalars, still on the device."""
        args, t = self.args, self.step / self.steps
        parts = args.gradient_accumulation_steps
        seed_everything(args.seed, self.step, self.accelerator.process_index)
        rate, decay = learning_rate(args.lr_scheduler_type, t, args.warmup_ratio), self.inner.decay(t)
        set_learning_rate(self.optimizer, rate, decay)
        self.guard.before_forward()
        sums: dict[str, torch.Tensor] = {}
        for i, micro in enumerate(micro_batches(batch, parts)):
            last = i == parts - 1
            with contextlib.nullcontext() if last or world() == 1 else self.objective.no_sync():
                with self.accelerator.autocast(), several_images(args.batch_size, parts):
                    out = scalars_of(self.inner, self.objective(self.lay_out(micro), t))
                (out["loss"] / parts).backward()
            for name, value in out.items():
                sums[name] = sums.get(name, 0) + value.detach() / parts
        ok, norm = finite(sums["loss"], self.params)
        ok = ok & self.guard.statistics_are_finite()
        if world() > 1:
            flag = ok.float()
            dist.all_reduce(flag, op=dist.ReduceOp.MIN)
            ok = flag.bool()
        if args.max_grad_norm is not None:
            clip([p.grad for p in self.params if p.grad is not None], args.max_grad_norm, norm, self.inner.clips_each)
        if self.guard.lets_through(ok):
            self.optimizer.step()
            self.inner.after_step(t)
            self.guard.undo_if_bad(ok)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return {**sums, "grad_norm": norm}

    def lay_out(self, batch):
        """Images in the memory layout of the network."""
        if isinstance(batch, dict):
            return {k: self.lay_out(v) for k, v in batch.items()}
        if isinstance(batch, list):
            return [self.lay_out(v) for v in batch]
        return batch.contiguous(memory_format=self.layout) if batch.dim() == 4 else batch

    # ---- the run --------------------------------------------------------------------------------------------------
    def fit(self) -> None:
        """Train to the end, from the newest checkpoint where `args.resume` asks for it.

        Raises:
            KeyboardInterrupt: after Ctrl-C, with a checkpoint on disk.
            Interrupted: after SIGTERM or SIGHUP, likewise.
        """
        if self.args.resume:
            self.resume()
        if self.start:
            self.start()
        bar = tqdm(total=self.steps, initial=self.step, disable=not interactive(), unit="step", dynamic_ncols=True)
        self.train_mode()
        if self.known and self.evaluate and self.step == 0:
            self.evaluate_now()
        before, begin, first, device = self.seconds, time.perf_counter(), self.step, self.accelerator.device
        with StopSignals(self.step) as signals, bar:
            last = self.step if self.state.stop else self.steps  # it was stopped when its end was decided
            batches = self.batches(self.step) if self.step < last else iter(())
            while self.step < last:
                scalars = self.train_step(next(batches))
                bar.update()
                self.tell("on_step_end", scalars)
                done = self.state.stop or self.step == self.steps
                if self.args.dry_run:
                    self._clock()
                if self.step % self.log_every == 0 or done:
                    self.write_log(scalars, begin, first, bar)
                    done = done or self.state.stop
                if self.evaluate and (self.step % self.eval_steps == 0 or done):
                    self.evaluate_now()
                asked = signals.agreed(self.step, device)
                ends = self.state.stop and self.save_run is not None  # a trial is stopped to be timed, and thrown away
                if asked or ends or not self.state.stop and (self.step % self.save_steps == 0 or done):
                    self.seconds = before + time.perf_counter() - begin
                    self.save()
                if asked:
                    self._say_stopped(asked)
                    stop(asked)
                if self.state.stop:
                    break
            self.seconds = before + time.perf_counter() - begin
            self.check_finite(ended=True)
        if late := signals.agreed(self.step, device, ended=True):  # since the last question; all is saved
            stop(late)

    def train_mode(self) -> None:
        self.inner.train()
        for name in self.still:
            self.inner.get_submodule(name).eval()

    def tell(self, event: str, *values) -> None:
        """Call the callbacks."""
        self.state.step, self.state.history = self.step, self.history
        for callback in self.callbacks:
            getattr(callback, event)(self.state, *values)

    def _clock(self) -> None:
        """Seconds of the latest step of a dry run; its second one is past all first-time costs."""
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.step_seconds, self._last = now - getattr(self, "_last", now), now

    def real_eval_steps(self) -> int:
        return self.args.eval_steps or max(1, self.args.max_steps // 10)

    def write_log(self, scalars: dict, begin: float, first: int, bar) -> None:
        """Fetch this step's scalars (the only time the host waits for the device) and write them down."""
        device = self.accelerator.device
        values = all_mean(
            torch.stack([torch.as_tensor(v, dtype=torch.float32, device=device) for v in scalars.values()])
        )
        row = {
            "step": self.step,
            **dict(zip(scalars, map(number, values.tolist()), strict=True)),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "skipped": int(self.guard.total),
            "steps_per_second": (self.step - first) / max(time.perf_counter() - begin, 1e-9),
        }
        self.journal.record(row)
        self.tell("on_log", row)
        if self.accelerator.is_main_process:
            show(row, self.steps, bar)
        self.check_finite(self.step == self.steps)

    def check_finite(self, ended: bool) -> None:
        """Raises Diverged after too many bad steps in a row, and at the end of a run that had no other."""
        longest, none_good = int(self.guard.longest), ended and int(self.guard.total) == self.step > 0
        if none_good or longest >= self.args.max_bad_steps:
            raise diverged(longest, self.step, none_good, checkpoints(self.folder / "checkpoints"))

    def evaluate_now(self) -> None:
        """Evaluate, log, and keep the best weights; early stopping asks for the end through `state.stop`."""
        begin = time.perf_counter()
        scores = self.evaluate(self.inner)
        self.eval_seconds = time.perf_counter() - begin
        self.train_mode()
        if not scores:
            return
        self.journal.record({"step": self.step, **scores})
        if self.accelerator.is_main_process:
            said = "  ".join(f"{k} {v + 0.0:.4g}" for k, v in scores.items())
            log.info("step %d/%d  %s", self.step, self.steps, said)
        score = float("nan") if self.best_score is None else scores[self.best_score]
        if score == score:  # one is asked for, and it is a number
            self.stale = 0 if self.best is None or score > self.best else self.stale + 1
            if self.best is None or score > self.best or self.best_step and score == self.best:  # the longer trained
                self.best, self.best_step = score, self.step
                state = self.inner.evaluated.state_dict()
                self.best_weights = {k: v.detach().cpu().clone() for k, v in state.items()}
            if self.args.early_stopping is not None and self.stale >= self.args.early_stopping:
                self.state.stop = True
        self.tell("on_evaluate", scores)

    # ---- checkpoints ----------------------------------------------------------------------------------------------
    def save(self) -> None:
        ends = self.state.stop
        if self.accelerator.is_main_process:
            state = {"guard": self.guard.state_dict(), "stop": self.state.stop, **self.identity}
            state |= {name: getattr(self, name) for name in KEPT}
            best = {f"best::{k}": v for k, v in self.best_weights.items()}
            tensors, keep = {**self.inner.state_dict(), **best}, self.args.save_total_limit
            save_checkpoint(self.folder / "checkpoints", self.step, tensors, self.optimizer, state, keep)
            if self.save_run:
                self.state.record = self.save_run(self)
        self.tell("on_save")
        barrier()
        if self.state.stop and not ends:  # a callback has just decided it: a resumed run has to know
            self.save()

    def resume(self) -> None:
        """Go on from the newest whole checkpoint. Raises UserError for one of other settings or data."""
        found = load_newest(self.folder / "checkpoints")
        if found is None:
            log.info("no checkpoint in %s yet: starting from step 0", self.folder)
            self.journal.cut(-1)
            return
        path, tensors, optimizer, state = found
        check_same(path, state, self.identity, self.steps)
        set_aside(path)
        self.best_weights = {k.removeprefix("best::"): tensors.pop(k) for k in list(tensors) if k.startswith("best::")}
        try:
            self.inner.load_state_dict(tensors)
        except RuntimeError as error:
            raise UserError(
                f"{path} has other tensors than the method has now: its code has changed since. Take the network from "
                "it with --init-from, or begin anew in another --output-dir."
            ) from error
        restore_optimizer(self.optimizer, optimizer, state["optimizer"])
        self.step, self.state.stop = state["step"], state.get("stop", False)
        for name in KEPT:
            setattr(self, name, state[name])
        self.guard.load_state_dict(state["guard"])
        self.journal.cut(self.step)
        log.info("resumed from %s", path.name)
        before = state.get("settings", {}).get("max_steps") or self.steps
        if before < self.steps:  # more are asked for than those that were not worth their while
            self.state.stop, self.stale = False, 0
            log.warning(longer(self.args, self.step, before, self.steps))
        elif self.state.stop:
            log.info("the run was stopped at step %d: no step is trained. More --max-steps let it go on", self.step)

    def take_best(self) -> None:
        """Put the weights of the best evaluation, where one was kept, into the network that is saved."""
        if self.best_weights:
            self.inner.evaluated.load_state_dict(self.best_weights)
            log.info("took the weights of step %d (%s %.4g)", self.best_step, self.best_score, self.best + 0.0)
            if self.best == 0 and self.best_score == "sel":
                log.warning("sel is 0 at every evaluation and cannot choose the weights. --validation N lets it")

    def _say_stopped(self, number: int) -> None:
        if self.accelerator.is_main_process:
            name = signal.Signals(number).name
            kept = "" if self.args.dry_run else "; saved"
            log.warning("stopped by %s at step %d of %d%s", name, self.step, self.steps, kept)


def seed_everything(seed: int, step: int, rank: int) -> None:
    """torch's generators as a function of (seed, step, rank): dropout and mixing are the same after a resume."""
    value = ((seed * 1_000_003 + step) * 4096 + rank) % (2**63)
    if torch.accelerator.is_available():
        torch.manual_seed(value)
    else:  # the same, without the stack that torch formats three times for generators that are not there, ms a step
        torch.default_generator.manual_seed(value)

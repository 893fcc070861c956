"""Four micro-batches leave the state of one batch of the same images: averages, teachers, thresholds and queues.

BatchNorm keeps its statistics here, since those of a micro-batch are its own.
"""

import copy

import finetuning_stand_in
import pretraining_stand_in
import pytest
import segmenter_stand_in
import torch

from hf_lowlabel.arguments import TrainingArguments
from hf_lowlabel.methods import METHODS, find, hyperparameters, verb_of
from hf_lowlabel.objective import IGNORE_INDEX, build_objective
from hf_lowlabel.training.loop import KEEPS_STATISTICS, Loop
from hf_lowlabel.training.setup import start_accelerator

PARTS, STEPS = 4, 3
SMALL = {
    "comatch": dict(bank=40, edge=0.2, memory=2),
    "sscl": dict(memory=2, queue=40),
    "remixmatch": dict(memory=2),
    "simmatch": dict(memory=2),
    "freematch": dict(m=0.5),
    "softmatch": dict(m=0.5),
    "adamatch": dict(m=0.5, tau=0.6, memory=2),
    "flexmatch": dict(tau=0.4),
    "s4l-exemplar": dict(instances=3, width=8),
    "self-tuning": dict(width=8, queue=3),
    "clmb": dict(width=8, memory=6, fresh=3, samples=40, tau=0.3, ramp=0.2),
    "dino": dict(center_m=0.5, freeze_last=0.0),
    "unimatch": dict(box=0.0),  # a box moves pixels inside of an image from part to part, after they are counted
    "unimatch-v2": dict(box=0.0),
}
# Their gradient is that of micro-batches, for the reason given: the weights of the other run are taken over, and all
# that is remembered has to be the same.
OF_MICRO_BATCHES = {
    "compares images of a batch": "simclr vicreg lejepa exemplar s4l-exemplar less comatch mixmatch remixmatch sscl",
    "draws a number for each image": "pixpro-affine vat vat-entmin moam",
    "is judged by the averages so far": "freematch softmatch adamatch simmatch self-tuning",
    "is scaled by the share of sure pixels, which is not known before all parts are": "cutmix classmix",
    "takes means over the pixels of a class": "clmb",
}
DRAWN = {"sscl": ("prototypes", "similar.rows")}  # from mixes of images drawn within a micro-batch


def make(name: str, **more):
    """The objective of a method and step -> batch."""
    cls = find(name)
    if verb_of(name) == "pretrain":
        objective = pretraining_stand_in.make(name, **{k: v for k, v in SMALL.get(name, {}).items()})
        return objective, lambda step: pretraining_stand_in.batch_for(objective, 8, seed=step)
    lively = {k: v for k, v in {"tau": 0.3, "ramp": 0.2}.items() if k in hyperparameters(cls)}
    arguments = {**lively, **SMALL.get(name, {}), **more}
    if cls.tasks[0] == "classification":
        objective = finetuning_stand_in.build(name, **arguments)
        return objective, lambda step: finetuning_stand_in.make_batch(objective, step, B=8, M=16)
    torch.manual_seed(1)
    objective = build_objective(name, segmenter_stand_in.TinySegmenter(), arguments, num_classes=segmenter_stand_in.K)
    return objective, lambda step: segmenter_stand_in.make_batch(step, labeled=4, unlabeled=8)


def loop_for(objective, folder, parts: int) -> Loop:
    args = TrainingArguments(
        gradient_accumulation_steps=parts,
        optimizer="sgd",
        learning_rate=0.05,
        weight_decay=0.0,
        head_lr=1.0,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        max_steps=STEPS + 1,
    )
    accelerator = start_accelerator(args, folder)
    for module in objective.modules():  # a batch's statistics are not those of its parts
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            setattr(module, KEEPS_STATISTICS, True)
    loop = Loop(
        objective,
        lambda start: iter(()),
        args,
        folder,
        accelerator=accelerator,
        base_learning_rate=0.05,
    )
    loop.train_mode()
    return loop


def after_the_weights_of(other, objective):
    """`objective.after_step` that first takes over the weights of `other`."""
    real = objective.after_step

    def after_step(t: float) -> None:
        with torch.no_grad():
            for mine, theirs in zip(objective.parameters(), other.parameters(), strict=True):
                if mine.requires_grad:  # averages follow by themselves
                    mine.copy_(theirs)
        real(t)

    return after_step


@pytest.mark.parametrize("name", [n for n in METHODS if not find(n).frozen])
def test_four_micro_batches_leave_the_state_of_one_batch(name, tmp_path):
    objective, batch = make(name)
    whole, parts = (loop_for(copy.deepcopy(objective), tmp_path, n) for n in (1, PARTS))
    if any(name in names.split() for names in OF_MICRO_BATCHES.values()):
        parts.inner.after_step = after_the_weights_of(whole.inner, parts.inner)
    moved = set()
    for step in range(STEPS):
        before = {k: v.clone() for k, v in whole.inner.state_dict().items()}
        whole.train_step(batch(step))
        parts.train_step(batch(step))
        state = parts.inner.state_dict()
        for key, expected in whole.inner.state_dict().items():
            moved |= {key} if not torch.equal(expected, before[key]) else set()
            if key not in DRAWN.get(name, ()):
                torch.testing.assert_close(state[key], expected, rtol=2e-4, atol=2e-6, msg=lambda m: f"{key}: {m}")
    statistics = ("running_mean", "running_var", "num_batches_tracked", "priors")
    remembered = {k for k, _ in objective.named_buffers() if not k.endswith(statistics)}
    assert remembered <= moved, f"these never moved, which proves nothing: {remembered - moved}"


@pytest.mark.parametrize("name", ["supervised", "cutmix", "unimatch", "clmb"])
def test_few_strokes_weigh_as_much_in_parts_as_in_one_batch(name, tmp_path):
    torch.manual_seed(1)
    weights = {"cutmix": dict(lambda_u=0.0), "clmb": dict(lambda_c=0.0, lambda_e=0.0, ramp=1.0, width=8, memory=6)}
    arguments = weights.get(name, {}) | (dict(lambda_s=0.0, lambda_fp=0.0) if name == "unimatch" else {})
    net = segmenter_stand_in.TinySegmenter()
    objective = build_objective(name, net, arguments, num_classes=segmenter_stand_in.K)
    batch = segmenter_stand_in.make_batch(0, labeled=4, unlabeled=8)
    target = batch["labeled"]["target"]
    target[1:] = IGNORE_INDEX
    target[2, 3, :2] = 1  # a few strokes; the others have none
    whole, parts = (loop_for(copy.deepcopy(objective), tmp_path, n) for n in (1, PARTS))
    one, other = whole.train_step(batch), parts.train_step(batch)
    torch.testing.assert_close(other["loss"], one["loss"], rtol=1e-4, atol=1e-6)
    assert float(one["loss"]) > 0.1
    for (key, mine), theirs in zip(parts.inner.model.named_parameters(), whole.inner.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-4, atol=2e-6, msg=lambda m: f"{key}: {m}")


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("fixmatch", dict(tau=0.3)),
        ("mean-teacher", dict(ramp=0.0)),
        ("unimatch", dict(tau=0.3, drop=0.0, box=0.0)),
        ("unimatch-v2", dict(tau=0.3, box=0.0)),
        ("clmb", dict(lambda_c=0.0, lambda_e=0.5, ramp=0.0, mix=0.0, width=8, memory=6)),
    ],
)
def test_views_that_lie_outside_of_their_images_weigh_by_what_is_inside(name, arguments, tmp_path):
    """A part whose views show next to nothing weighed as much as one of whole images."""
    torch.manual_seed(1)
    net = segmenter_stand_in.TinySegmenter()
    objective = build_objective(name, net, arguments, num_classes=segmenter_stand_in.K)
    batch = segmenter_stand_in.make_batch(0, labeled=4, unlabeled=8)
    valid = batch["unlabeled"]["valid"]
    valid[:2] = True
    valid[2:] = False
    valid[4:6, 3, :2] = True
    whole, parts = (loop_for(copy.deepcopy(objective), tmp_path, n) for n in (1, PARTS))
    one, other = whole.train_step(batch), parts.train_step(batch)
    for key in ("loss", "consistency"):
        torch.testing.assert_close(other[key], one[key], rtol=1e-4, atol=1e-6)
    assert float(one["consistency"]) > 1e-3
    for (key, mine), theirs in zip(parts.inner.model.named_parameters(), whole.inner.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-4, atol=2e-6, msg=lambda m: f"{key}: {m}")

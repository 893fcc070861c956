"""Learning rates over a run, against the epochs that the papers state."""

import math
from types import SimpleNamespace

import pytest
import torch
from pretraining_stand_in import TinyEncoder

from hf_lowlabel.arguments import Config, TrainingArguments
from hf_lowlabel.methods import METHODS, find
from hf_lowlabel.pretraining.byol import BYOL
from hf_lowlabel.pretraining.dino import DINO
from hf_lowlabel.pretraining.l2_sp import L2SP
from hf_lowlabel.settings import resolve
from hf_lowlabel.training.optim import build_optimizer, clip, learning_rate, set_learning_rate


def resolved(**given) -> SimpleNamespace:
    """All settings of a run of finetune, by name."""
    return SimpleNamespace(**resolve(Config.from_flat("finetune", {"dataset": "x", **given})).flat())


@pytest.mark.parametrize(
    "schedule, warmup, epochs",
    [
        ("steps", 0, {0: 1, 59: 1, 60: 0.1, 119: 0.1, 120: 0.01, 160: 0.001, 199: 0.001}),  # S4L, section 4.2
        ("steps-rotnet", 0, {0: 1, 59: 1, 60: 0.2, 119: 0.2, 120: 0.04, 160: 0.008, 199: 0.008}),  # Gidaris et al.
        ("steps-late", 5, {0: 0, 2.5: 0.5, 5: 1, 139: 1, 141: 0.1, 161: 0.01, 181: 0.001}),  # S4L, section 4.1
        (
            "steps-even",
            3.3,
            {0: 0, 1.65: 0.5, 4: 1, 33: 1, 34: 0.1, 67: 0.01, 101: 0.001, 134: 1e-4, 199: 1e-5},
        ),  # FixMatch
        ("steps-tuning", 0, {0: 1, 44: 1, 45: 0.1, 88: 0.1, 89: 0.01, 134: 1e-3, 178: 1e-4}),  # Self-Tuning
        ("steps-moam", 10, {0: 0, 5: 0.5, 10: 1, 99: 1, 101: 0.1, 149: 0.1, 151: 0.01, 191: 0.001}),  # S4L, section 5
    ],
)
def test_drops_at_the_epochs_of_the_papers(schedule, warmup, epochs):
    for epoch, expected in epochs.items():
        assert learning_rate(schedule, epoch / 200, warmup / 200) == pytest.approx(expected)


def test_smooth_schedules_start_after_the_warmup():
    assert learning_rate("fixmatch", 1.0) == pytest.approx(math.cos(7 * math.pi / 16))
    assert learning_rate("cosine", 0.1, 0.1) == 1 and learning_rate("cosine", 0.55, 0.1) == pytest.approx(0.5)
    assert learning_rate("poly", 0.36) == pytest.approx(0.64**0.9) and learning_rate("poly", 1.0) == 0
    assert learning_rate("linear", 0.25) == 0.75 and learning_rate("constant", 0.9) == 1


@pytest.mark.parametrize(
    "method, preset, steps",
    [("s4l-rotation", "imagenet-10", 100_000), ("vat", "imagenet-1", 50_000), ("moam", "imagenet-10", 200_000)],
)
def test_lengths_in_passes_over_the_labels(method, preset, steps):
    """S4L counts epochs over the labeled images: 200 of 128,000, 1000 of 13,000, 200 of 128,000 at half the batch."""
    from hf_lowlabel.training.setup import steps as length

    config = resolved(method=method, preset=preset)
    found = length(config, 1_281_167, config.batch_size * config.unlabeled_ratio)
    assert found == pytest.approx(steps, rel=0.02) and preset in find(method).presets


@pytest.mark.parametrize("method, entropy", [("vat", None), ("vat-entmin", 1.0)])
def test_vat_on_imagenet_as_its_authors_ran_it(method, entropy):
    """S4L, section 4.2, and config/vat.sh, config/vat_entmin.sh of its code, for 10 % of the labels.

    Its change of length 40 is one of pixels in [-1, 1], whose deviation is 0.226 / 0.5.
    """
    config = resolved(method=method, preset="imagenet-10")
    arguments = {"eps": pytest.approx(40 * 0.5 / 0.226, abs=0.5), "lambda_u": 0.5, "ramp": 0.0}
    arguments |= {"entropy": entropy} if entropy else {}
    assert config.method_args == arguments
    assert (config.learning_rate, config.weight_decay, config.batch_size) == (pytest.approx(0.03), 1e-3, 256)
    assert (config.lr_scheduler_type, config.warmup_ratio) == ("steps-late", 5 / 200)


def test_fixmatch_on_imagenet_as_its_authors_ran_it():
    """imagenet/ of its code: rate 0.1 for each 256 labeled images, 50 of 3000 epochs of warm-up, a drop every 500."""
    config = resolved(method="fixmatch", preset="imagenet")
    assert config.learning_rate == 0.1 * config.batch_size / 256 and config.warmup_ratio == pytest.approx(50 / 3000)
    assert config.weight_decay == 2 * 3e-4  # Keras's l2(3e-4) has twice the gradient of PyTorch's decay
    assert config.method_args == {"tau": 0.7, "lambda_u": 10.0} and config.unlabeled_ratio == 5


def of_masks(method, preset=None, **given):
    return resolved(task="segmentation", method=method, preset=preset, **given)


@pytest.mark.parametrize(
    "method, preset, rate, head, decay, images, scale",
    [
        ("classmix", "voc", 2.5e-4, 10, 5e-4, 10, [0.5, 1.5]),
        ("classmix", "cityscapes", 2.5e-4, 10, 5e-4, 2, [1, 1]),
        ("clmb", None, 2e-4, 1, 5e-4, 10, [0.5, 1.5]),
        ("unimatch", "voc", 1e-3, 10, 1e-4, 8, [0.5, 2]),
        ("unimatch", "cityscapes", 5e-3, 1, 1e-4, 8, [0.5, 2]),
        ("unimatch-v2", None, 5e-6, 40, 0.01, 16, [0.5, 2]),
    ],
)
def test_segmentation_as_its_authors_ran_it(method, preset, rate, head, decay, images, scale):
    """The configs/ of their code: rate of the encoder, the decoder's over it, decay, labeled images; power 0.9 in
    all."""
    config = of_masks(method, preset)
    assert (config.learning_rate, config.head_lr, config.weight_decay) == (rate, head, decay)
    assert (config.batch_size, config.scale, config.lr_scheduler_type) == (images, scale, "poly")


def test_cityscapes_as_classmix_and_unimatch_ran_it():
    """Whole images at half size, as they are; and every pixel a pseudo-label."""
    config = of_masks("classmix", "cityscapes")
    assert (config.image_height, config.image_size, config.stored_size, config.flip) == (512, 1024, 1024, False)
    assert of_masks("unimatch", "cityscapes").method_args == {"tau": 0.0, "hard": 200_000}
    assert of_masks("unimatch").method_args == {}


def test_what_is_said_of_the_scale_wins():
    assert of_masks("unimatch", scale=[1.0, 1.2]).scale == [1.0, 1.2] and of_masks("cutmix").scale == [0.5, 1.5]


def test_simmatch_on_imagenet_replaces_what_it_stored():
    """models/simmatch.py of its code: with a teacher the bank takes the newest embedding."""
    assert resolved(method="simmatch", preset="imagenet").method_args["bank_m"] == 0


@pytest.mark.parametrize(
    "name, drops", [("steps-eman", (0.6, 0.8)), ("steps-thirds", (1 / 3, 2 / 3)), ("steps-quarters", (0.25, 0.5, 0.75))]
)
def test_drops_of_the_authors(name, drops):
    for t in (0.1, 0.3, 0.4, 0.55, 0.7, 0.9):
        assert learning_rate(name, t) == pytest.approx(0.1 ** sum(t >= d for d in drops))


def test_rotnet_takes_the_rates_of_its_authors():
    """config/CIFAR10_RotNet_NIN4blocks.py of their code: 0.1 to epoch 60, 0.02 to 120, 0.004 to 160, 0.0008 to 200."""
    config = SimpleNamespace(**resolve(Config.from_flat("pretrain", {"dataset": "x", "method": "rotnet"})).flat())
    peak = config.learning_rate * config.batch_size / 256
    rates = [peak * learning_rate(config.lr_scheduler_type, (epoch + 0.5) / 200) for epoch in (59, 119, 159, 199)]
    assert rates == pytest.approx([0.1, 0.02, 0.004, 0.0008])


def test_adamatch_ends_at_a_quarter():
    assert learning_rate("adamatch", 1.0) == pytest.approx(0.25) and learning_rate("adamatch", 0.0) == 1.0


@pytest.mark.parametrize("method", [n for n in METHODS if not find(n).frozen])
def test_every_preset_has_a_length(method):
    """Otherwise it would end after the steps that a run without preset has."""
    for name, values in find(method).presets.items():
        assert {"max_steps", "epochs"} & set(values), name


def test_decay_and_clipping_of_dino():
    """Weight decay from 0.04 to 0.4 by a cosine, and gradients of at most 3 tensor by tensor, as in main_dino.py."""
    objective = L2SP(DINO(TinyEncoder(), out=4, hidden=4, bottleneck=4, decay_end=10.0), 1.0)
    assert [0.04 * objective.decay(t) for t in (0.0, 0.5, 1.0)] == pytest.approx([0.04, 0.22, 0.4])
    assert objective.clips_each and not L2SP(BYOL(TinyEncoder(), hidden=4, out=4), 1.0).clips_each
    args = TrainingArguments(optimizer="adamw", weight_decay=0.04, head_lr=1.0)
    optimizer = build_optimizer(objective, args, 0.1)
    set_learning_rate(optimizer, 1.0, 10.0)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.4, 0.0}
    grads = [torch.full((4,), 5.0), torch.full((4,), 1.0)]
    clip(grads, 3.0, torch.tensor(10.2), each=True)
    torch.testing.assert_close(torch.stack([g.norm() for g in grads]), torch.tensor([3.0, 2.0]))


def test_a_new_decoder_learns_faster_than_an_encoder_that_knows_something():
    """Where nobody says otherwise: presets are as their authors ran them."""
    named = dict(task="segmentation", model="resnet18")
    for method in ("supervised", "cutmix"):
        assert resolved(method=method, **named).head_lr == 10
        assert resolved(method=method, head_lr=3.0, **named).head_lr == 3
        for random in (dict(from_scratch=True), dict(model=torch.nn.Linear(1, 1))):
            assert resolved(method=method, **{**named, **random}).head_lr == 1
    assert resolved(method="unimatch", from_scratch=True, **named).head_lr == 10  # its own
    isic = of_masks("cutmix", "isic")  # encoder 0.01, decoder 0.1
    assert (isic.learning_rate, isic.head_lr) == (0.01, 10) and of_masks("cutmix", "voc").head_lr == 1
    assert resolved(method="fixmatch", model="resnet18").head_lr == 1


def test_a_decoder_that_is_no_new_one_learns_as_its_encoder_does(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert resolved(task="segmentation", method="cutmix", init_from=str(tmp_path)).head_lr == 1

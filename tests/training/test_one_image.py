"""A batch of which a network sees one image alone, and one that cannot be cut: a sentence, for every method."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hf_lowlabel.arguments import Config, TrainingArguments
from hf_lowlabel.errors import UserError
from hf_lowlabel.methods import find, methods_for
from hf_lowlabel.settings import resolve
from hf_lowlabel.training import setup
from hf_lowlabel.training.sync_batchnorm import several_images

from .conftest import trained


@pytest.mark.parametrize("method", trained("classification"))
def test_one_image_a_batch_trains_or_is_refused_in_a_sentence(method, start, few_images, tmp_path):
    """The last maps of this network are one pixel; some methods pass the labeled images or a view by themselves."""
    tiny = dict(model="test_resnet", image_size=32, stored_size=32, test_fraction=0.0, validation=0)
    more = dict(batch_size=1, unlabeled_ratio=1, max_steps=1, dry_run=True)
    try:
        start("finetune", "classification", method, tmp_path / "run", **tiny, **more)
    except UserError as error:
        assert "Give --batch-size 2 or more" in str(error) or "Use a batch_size of 2 or more" in str(error)
    else:
        assert method not in ("remixmatch", "sscl", "s4l-exemplar")


@pytest.fixture
def alone(tmp_path):
    """A folder of one photo."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    (tmp_path / "alone").mkdir()
    Image.fromarray(pixels).save(tmp_path / "alone" / "a.png")
    return tmp_path / "alone"


@pytest.mark.parametrize("method", [name for name in methods_for("pretrain") if find(name).compares])
def test_one_image_in_all_is_refused_by_methods_that_compare_images(method, start, alone, tmp_path):
    """Its own copies are no negatives: the loss would be 0 from the first step, and the run a success."""
    assert {"simclr", "exemplar"} <= {name for name in methods_for("pretrain") if find(name).compares}
    with pytest.raises(UserError, match=f"There is 1 image to train on, but {method} compares images. Add images"):
        start("pretrain", "classification", method, tmp_path / "run", dataset=alone, model="cnn6_16")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_one_image_in_all_trains_a_method_that_learns_from_each(start, alone, tmp_path):
    run = start("pretrain", "classification", "byol", tmp_path / "run", dataset=alone, model="cnn6_16")
    assert run.progress.step == 6


def test_torchs_words_for_one_image_alone():
    for shape, parts in (((1, 3, 1, 1), 1), ((1, 3), 2)):
        layer = nn.BatchNorm2d(3) if len(shape) == 4 else nn.BatchNorm1d(3)
        words = f"batch_size of {parts} in {parts} parts? leaves one image .* Give --batch-size {2 * parts} or more"
        with pytest.raises(UserError, match=words), several_images(parts, parts):
            layer(torch.zeros(shape))
    with pytest.raises(ValueError, match="other"), several_images(1, 1):
        raise ValueError("other")


@pytest.mark.parametrize("verb, method", [("finetune", "fixmatch"), ("finetune", "supervised"), ("pretrain", "byol")])
def test_a_batch_that_cannot_be_cut_is_refused_before_data_is_read(verb, method):
    given = dict(dataset="no/such", method=method, batch_size=7, gradient_accumulation_steps=2)
    with pytest.raises(
        UserError, match="batch_size of 7 cannot be cut into 2 parts.* Give a --batch-size that is a mu"
    ):
        resolve(Config.from_flat(verb, given))
    resolve(Config.from_flat(verb, {**given, "batch_size": 8}))


def test_one_process_where_several_were_asked_for_is_said(monkeypatch, tmp_path, caplog):
    """What `accelerate launch --num_processes 2 --cpu` sets, and with one process."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    for name, value in (("ACCELERATE_USE_CPU", "True"), ("MASTER_ADDR", "127.0.0.1"), ("ACCELERATE_USE_CPU", "False")):
        monkeypatch.setenv(name, value)
        if (name, value) != ("MASTER_ADDR", "127.0.0.1"):  # an address alone may be that of a cluster
            setup.start_accelerator(TrainingArguments(), tmp_path)
            assert "torchrun" not in caplog.text
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    setup.start_accelerator(TrainingArguments(), tmp_path)
    assert "starts one. Start them with torchrun --nproc-per-node=N" in caplog.text


def test_a_batch_that_processes_cannot_share_is_refused_at_their_start(monkeypatch, tmp_path):
    real = setup.Accelerator

    def two(**settings):
        accelerator = real(**settings)
        monkeypatch.setattr(type(accelerator), "num_processes", 2)
        return accelerator

    monkeypatch.setattr(setup, "Accelerator", two)
    args = TrainingArguments(batch_size=6, gradient_accumulation_steps=2)
    with pytest.raises(UserError, match="6 cannot be shared by 2 processes, in 2 parts .* a multiple of 4"):
        setup.start_accelerator(args, tmp_path)
    setup.start_accelerator(TrainingArguments(batch_size=8, gradient_accumulation_steps=2), tmp_path)

"""Runs of a few steps on the embedded digits at 8 px: seconds each."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from hf_lowlabel import api, load_source
from hf_lowlabel.data.sources import shapes
from hf_lowlabel.methods import find, methods_for
from hf_lowlabel.tasks import TASKS, get_task
from hf_lowlabel.training.priors import save_priors
from hf_lowlabel.training.setup import logging_level

from ..quick import few_digits

TINY = dict(
    dataset="digits",
    model="wrn_10_2",
    from_scratch=True,
    image_size=8,
    stored_size=8,
    color=False,
    logging_steps=2,
    eval_steps=100,
    save_steps=2,
    batch_size=12,
    max_steps=6,
)
FINETUNE = dict(TINY, num_labels=20, class_balanced=True, unlabeled_ratio=2)
PRETRAIN = dict(TINY, min_scale=0.3)
SMALL = dict(  # for `photos`
    model="cnn6_16", from_scratch=True, image_size=16, batch_size=4, unlabeled_ratio=2, max_steps=4, logging_steps=2
)
SEGMENT = dict(
    task="segmentation",
    model="cnn6_16",
    from_scratch=True,
    architecture="unet",
    architecture_args=dict(encoder_depth=3, decoder_channels=[16, 8, 8]),
    image_size=16,
    scale=[0.8, 1.2],
    num_labels=4,
    batch_size=4,
    max_steps=6,
    logging_steps=2,
    eval_steps=100,
    save_steps=2,
)
SEGMENT_PRETRAIN = {
    **{k: v for k, v in SEGMENT.items() if k not in ("architecture", "architecture_args", "scale", "num_labels")},
    "method_args": dict(hidden=16, out=8),
}
MULTILABEL = dict(
    {k: v for k, v in FINETUNE.items() if k not in ("class_balanced", "color")},
    task="multilabel",
    dataset="scenes",
    model="cnn6_16",
    image_size=16,
    stored_size=16,
)
SETTINGS = {  # (verb, task) -> what a tiny run of it is given
    ("pretrain", "classification"): PRETRAIN,
    ("pretrain", "segmentation"): SEGMENT_PRETRAIN,
    ("finetune", "classification"): FINETUNE,
    ("finetune", "multilabel"): MULTILABEL,
    ("finetune", "segmentation"): SEGMENT,
}
NARROW = {  # heads of the papers' width take minutes here
    "vicreg": dict(hidden=32),
    "dino": dict(out=64, hidden=32, bottleneck=16),
    "densecl": dict(hidden=32, out=16, queue=60),
    "pixpro": dict(hidden=32, out=16),
    "pixpro-affine": dict(hidden=32, out=16),
    "lejepa": dict(hidden=32, out=16, slices=16),
    "moco": dict(queue=60),
    "byol": dict(hidden=64),
    "byol-eman": dict(hidden=64),
    "simsiam": dict(out=64, hidden=32),
    "clmb": dict(width=8, memory=6, fresh=3, samples=9, tau=0.3, ramp=0.3),
}


def trained(task: str) -> list[str]:
    """The methods of finetune that train a network for this task."""
    return [name for name in get_task(task).methods("finetune") if not get_task(task).method("finetune", name).frozen]


RUNS = [  # (verb, task, method): everything that trains
    *(
        ("pretrain", task, name)
        for task in ("classification", "segmentation")
        for name in methods_for("pretrain")
        if task in find(name).tasks
    ),
    *(("finetune", task, name) for task in TASKS for name in trained(task)),
]


@pytest.fixture
def start(few_images, masked, tmp_path):
    """start(verb, task, method, output_dir, **more): a tiny run."""

    def run(verb: str, task: str, method: str, output_dir, **more):
        settings = {**SETTINGS[verb, task], "method": method, "output_dir": output_dir}
        settings |= {"dataset": masked} if task == "segmentation" else {}
        settings |= {"method_args": NARROW[method]} if method in NARROW else {}
        if method == "rotnet":  # which cuts no random crop
            del settings["min_scale"]
        if find(method).prior == "must":
            settings["prior"] = tmp_path / "priors.safetensors"
            source, rng = load_source("digits"), np.random.default_rng(0)
            save_priors(settings["prior"], rng.dirichlet(np.ones(10), len(source)), source.ids, source.class_names)
        return getattr(api, verb)(**{**settings, **more})

    return run


@pytest.fixture(scope="session")
def masked(tmp_path_factory):
    """Fourteen 24 px photos with masks of three classes (a lighter square and a darker one on a ground), four
    without."""
    root, rng = tmp_path_factory.mktemp("masked"), np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir()
    for i in range(18):
        pixels, mask = rng.integers(90, 160, (24, 24 + i % 3, 3), dtype=np.uint8), np.zeros((24, 24 + i % 3), np.uint8)
        for k, value in ((1, 230), (2, 20)):
            y, x = rng.integers(0, 16, 2)
            pixels[y : y + 8, x : x + 8], mask[y : y + 8, x : x + 8] = value, k
        Image.fromarray(pixels).save(root / "images" / f"{i:02d}.png")
        if i < 14:
            Image.fromarray(mask).save(root / "masks" / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Two classes of 24 px images as folders, and unlabeled ones beside them."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for k, name in enumerate(("dark", "light")):
        (root / "labeled" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 100, (24, 24 + i, 3), dtype=np.uint8) + np.uint8(150 * k)
            Image.fromarray(pixels).save(root / "labeled" / name / f"{i}.png")
    (root / "raw").mkdir()
    for i in range(9):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(root / "raw" / f"{i}.png")
    return root


@pytest.fixture
def tiny():
    """Settings by verb."""
    return {"finetune": dict(FINETUNE), "pretrain": dict(PRETRAIN)}


def rewrite(folder, **pixels) -> None:
    """In a copy of `masked` some masks become other arrays, or go where it is None."""
    for name, value in pixels.items():
        path = folder / "masks" / f"{name[1:]}.png"
        path.unlink()
        if value is not None:
            Image.fromarray(value).save(path)


@pytest.fixture(autouse=True)
def visible_log():
    """Let caplog see the library's lines."""
    logging_level(True)


@pytest.fixture
def few_images():
    """The first 160 digits only, and 80 scenes."""
    with pytest.MonkeyPatch.context() as patch:
        few_digits(patch.setattr, 160)
        patch.setattr(shapes, "SIZES", {"train": 80, "test": 20})
        yield


def tensors(folder: Path, step: int) -> dict:
    """Everything a checkpoint holds, by name."""
    path = Path(folder) / "checkpoints" / f"step-{step:08d}"
    return {
        f"{part}/{k}": v
        for part in ("objective", "optimizer")
        for k, v in load_file(path / f"{part}.safetensors").items()
    }

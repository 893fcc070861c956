"""Encoders whose own preprocessing squeezes whole photos into squares are trained, served and saved so."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from hf_lowlabel import finetune, predict, pretrain
from hf_lowlabel.tasks.classification import eval_view
from hf_lowlabel.tasks.networks import sizes
from hf_lowlabel.view_arguments import ViewArguments
from tests.transformers_repos import PROCESSOR, make_encoder, save_repo

from .conftest import NARROW


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return str(
        save_repo(make_encoder("vit"), tmp_path_factory.mktemp("vit"), dict(PROCESSOR, size=dict(height=32, width=32)))
    )


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Two classes of wide and tall photos."""
    root, rng = tmp_path_factory.mktemp("wide"), np.random.default_rng(0)
    for k, name in enumerate(("dark", "light")):
        (root / name).mkdir()
        for i in range(4):
            shape = (40, 90, 3) if i % 2 else (90, 40, 3)
            Image.fromarray(rng.integers(0, 100, shape, dtype=np.uint8) + np.uint8(150 * k)).save(
                root / name / f"{i}.png"
            )
    return root


def squeezed(file) -> torch.Tensor:
    image = Image.open(file).resize((32, 32), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_from_pretraining_to_what_others_load(vit, wide, tmp_path):
    common = dict(dataset=str(wide), batch_size=4, max_steps=1)
    pre = pretrain(**common, model=vit, method="simsiam", method_args=NARROW["simsiam"], output_dir=tmp_path / "pre")
    pool, files = pre.recorder.caches[0], sorted(wide.rglob("*.png"))
    assert all(torch.equal(pool.images[row], squeezed(file)) for row, file in enumerate(files))
    run = finetune(
        **common, model=str(tmp_path / "pre"), method="supervised", num_labels=4, output_dir=tmp_path / "run"
    )
    cfg = run.model.config.pretrained_cfg
    assert cfg["crop_mode"] == "squash" and cfg["crop_pct"] == 1.0 and cfg["input_size"] == [3, 32, 32]
    own = transformers.AutoImageProcessor.from_pretrained(tmp_path / "run")
    theirs = transformers.pipeline("image-classification", model=str(tmp_path / "run"), device="cpu")
    view = eval_view(run.model)
    for row in predict(wide, tmp_path / "run", device="cpu").rows[::3]:
        image = Image.open(row["file"])
        seen = view(squeezed(row["file"])[None], torch.zeros(1, view.width, dtype=torch.float64))
        torch.testing.assert_close(own(image, return_tensors="pt")["pixel_values"], seen, atol=1e-5, rtol=0)
        first = theirs(image)[0]
        assert first["label"] == row["class"] and first["score"] == pytest.approx(row["confidence"], abs=1e-5)


def test_images_with_masks_keep_their_shape(vit, masked, tmp_path):
    pre = pretrain(
        task="segmentation",
        dataset=str(masked),
        batch_size=4,
        max_steps=1,
        model=vit,
        method="simsiam",
        method_args=NARROW["simsiam"],
        output_dir=tmp_path / "pre",
    )
    assert pre.model.config.pretrained_cfg["crop_mode"] == "center"


@pytest.mark.parametrize(
    "share, given, expected",
    [(1.0, {}, (224, 224)), (0.9, {}, (224, 248)), (7 / 8, {}, (224, 256)), (1.0, dict(stored_size=256), (224, 256))],
)
def test_what_is_stored_is_what_the_encoders_own_share_says(share, given, expected):
    assert sizes(ViewArguments(**given), 224, 500, share=share) == expected

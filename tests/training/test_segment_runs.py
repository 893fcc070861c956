"""Segmentation from settings to a folder that others can use, and the errors that stop it before anything is
computed."""

import json
import shutil

import numpy as np
import pytest
import torch
from hf_lowlabel.training.segment_data import read_split, shown_in, statistics_of
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

from hf_lowlabel import finetune
from hf_lowlabel.arguments import FinetuneConfig
from hf_lowlabel.cli import main
from hf_lowlabel.data.image_cache import ResidentCache
from hf_lowlabel.data.opening import load_segmentation
from hf_lowlabel.data.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation import segmentation
from hf_lowlabel.methods import find, methods_for
from hf_lowlabel.models import LowLabelBackbone
from hf_lowlabel.training import segment_run

from .conftest import SEGMENT

BOTH_MASKS = ["ground", "light", "dark"]


@pytest.mark.pictures
def test_a_run_leaves_everything(masked, tmp_path):
    run = finetune(
        **SEGMENT,
        dataset=str(masked),
        classes=BOTH_MASKS,
        validation=2,
        method="cutmix",
        output_dir=str(tmp_path / "run"),
    )
    left = {p.name for p in run.folder.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "segmenter.py",
        "configuration_segmenter.py",
        "README.md",
        "split.json",
        "metrics.json",
        "training.yaml",
        "log.jsonl",
        "run.json",
        "curves.png",
        "predictions.png",
        "confusion.png",
        "checkpoints",
    } == left
    assert all((run.folder / name).stat().st_size > 2000 for name in left if name.endswith(".png"))
    facts = json.loads((run.folder / "run.json").read_text())
    assert facts["kind"] == "segmentation" and facts["labels"]["number"] == 4
    assert facts["labels"]["per_class"] == dict.fromkeys(BOTH_MASKS, 4)  # every mask of this set shows all three
    assert facts["data"]["images"] == 18 - 3 - 2  # test images and validation images are not trained on
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["images"] == 3 and {"miou", "dice", "pixel_accuracy", "validation_miou"} <= metrics.keys()
    assert run.progress.best_weights and metrics["validation_miou"] == run.progress.best
    card = ModelCard.load(run.folder / "README.md")
    assert card.data.pipeline_tag == "image-segmentation" and "predictions.png" in card.text
    assert "4 images with masks" in card.text


def test_command_line_with_a_list_of_ids(masked, tmp_path, capsys):
    (tmp_path / "labeled.txt").write_text("images/00\n03\n05\n")
    flags = [
        f"--{k.replace('_', '-')}={v}"
        for k, v in SEGMENT.items()
        if isinstance(v, (str, int)) and not isinstance(v, bool)
    ]
    flags = [f for f in flags if not f.startswith("--num-labels")]
    argv = [
        "finetune",
        *flags,
        "--from-scratch",
        "--architecture-args",
        "encoder_depth=3",
        "decoder_channels=[16,8,8]",
        "--scale",
        "0.8",
        "1.2",
        "--dataset",
        str(masked),
        "--split",
        str(tmp_path / "labeled.txt"),
        "--method",
        "supervised",
        "--output-dir",
        str(tmp_path / "run"),
    ]
    assert main(argv) == 0
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert list(split["labeled"]) == ["00.png", "03.png", "05.png"] and not split["test"]
    assert "class 2" in split["class_names"]  # counted in the masks
    assert main([*argv, "--output-dir", str(tmp_path / "other"), "--dry-run"]) == 0
    assert "memory:" in capsys.readouterr().out and not (tmp_path / "other").exists()


def test_mean_and_classes_are_of_the_images_not_of_the_canvas():
    """Two images of different size: what fills the canvas up is no pixel, and 255 in a mask no class."""
    images = torch.zeros(2, 4, 6, 8, dtype=torch.uint8)
    images[:, 3] = 255
    for i, (h, w) in enumerate(((6, 4), (2, 8))):
        images[i, :3, :h, :w] = torch.tensor([255, 51, 0], dtype=torch.uint8)[:, None, None]
        images[i, 3, :h, :w] = i
    images[0, :3, :, :2], images[0, 3, 0, 0] = 0, 2
    pool = ResidentCache(images, ["a", "b"], [0, 1], sizes=np.array([[6, 4], [2, 8]]))
    mean, std = statistics_of(pool)
    share = 28 / 40  # of the pixels are coloured
    assert mean == pytest.approx([share, share / 5, 0], abs=1e-6)
    assert std == pytest.approx([(share * (1 - share)) ** 0.5, (share * (1 - share)) ** 0.5 / 5, 1e-3], abs=1e-6)
    assert shown_in(pool, 4) == [1, 1, 1, 0]


def test_segments_better_than_chance_after_a_few_steps(masked, tmp_path):
    """Plain colours are learned by the supervised baseline: geometry, targets and evaluation belong together."""
    settings = dict(
        SEGMENT, method="supervised", max_steps=60, learning_rate=0.01, method_args=dict(ema_decay=0.9), num_labels=8
    )
    run = finetune(**settings, dataset=str(masked), output_dir=str(tmp_path))
    assert run.metrics["miou"] > 0.8, run.metrics["per_class"]


def test_encoder_from_target_pretraining(masked, tmp_path, monkeypatch):
    from hf_lowlabel import pretrain

    common = dict(task="segmentation", dataset=str(masked), image_size=16, batch_size=4, max_steps=2)
    frozen, freeze = [], LowLabelBackbone.freeze_beyond_map
    monkeypatch.setattr(LowLabelBackbone, "freeze_beyond_map", lambda self: frozen.append(self) or freeze(self))
    pre = pretrain(
        **common,
        model="cnn6_16",
        from_scratch=True,
        method="pixpro",
        method_args=dict(hidden=16, out=8),
        output_dir=str(tmp_path / "pre"),
    )
    assert frozen == [pre.model]  # several processes would wait for the gradients of layers behind the map
    assert len(pre.recorder.pools["pool"]) == 18  # images without masks too, and no mask among the images
    still = dict(
        SEGMENT,
        model=str(tmp_path / "pre"),
        from_scratch=False,
        method="supervised",
        optimizer="sgd",
        learning_rate=0.0,
    )
    fine = finetune(**still, dataset=str(masked), output_dir=str(tmp_path / "fine"))
    a, b = load_file(tmp_path / "pre" / "model.safetensors"), load_file(tmp_path / "fine" / "model.safetensors")
    encoder = {k.removeprefix("network.encoder.model."): v for k, v in b.items() if k.startswith("network.encoder.")}
    same = [k for k in a if "running" not in k and "num_batches" not in k and k.replace("timm_model.", "") in encoder]
    assert len(same) > 10 and all(torch.equal(a[k], encoder[k.replace("timm_model.", "")]) for k in same)
    lineage = json.loads((fine.folder / "run.json").read_text())["lineage"]
    assert [s["what"] for s in lineage] == ["random weights", "target pretraining", "finetuning"]


@pytest.mark.parametrize("width", [32, 22, 17])  # 2:1, 4:3 and nearly square
def test_target_pretraining_sees_all_of_wide_images(tmp_path, width):
    from hf_lowlabel import pretrain

    rng, folder = np.random.default_rng(0), tmp_path / "wide"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (16, width, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    run = pretrain(
        task="segmentation",
        dataset=str(folder),
        image_size=16,
        batch_size=4,
        epochs=1,
        model="cnn6_16",
        from_scratch=True,
        method="pixpro",
        method_args=dict(hidden=16, out=8),
        output_dir=str(tmp_path / "run"),
    )
    pool = run.recorder.pools["pool"]
    starts = [0, width - 16] if width > 17 else [0]
    assert len(pool) == 4 * len(starts)
    for row, i in enumerate(np.repeat(range(4), len(starts))):
        whole = torch.from_numpy(np.array(Image.open(folder / f"{i}.png"))).permute(2, 0, 1)
        assert torch.equal(pool.images[row], whole[:, :, starts[row % len(starts)] :][:, :, :16])
    assert run.config.max_steps == 1  # an epoch is as many views as there are images
    assert json.loads((run.folder / "run.json").read_text())["data"]["images"] == 4


def test_init_from_a_segmenter(masked, tmp_path):
    finetune(**SEGMENT, dataset=str(masked), method="supervised", output_dir=str(tmp_path / "a"))
    again = dict(SEGMENT, init_from=str(tmp_path / "a"), method="supervised", optimizer="sgd", learning_rate=0.0)
    finetune(**again, dataset=str(masked), output_dir=str(tmp_path / "b"))
    a, b = (load_file(tmp_path / k / "model.safetensors") for k in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a if "running" not in k and "num_batches" not in k)
    with pytest.raises(UserError, match="found a segmenter of the classes class 0"):
        finetune(**again, dataset=str(masked), classes=BOTH_MASKS, output_dir=str(tmp_path / "c"))


def rewrite(folder, **pixels):
    """A copy of the data in which some masks are other arrays, or None for none."""
    for name, value in pixels.items():
        path = folder / "masks" / f"{name[1:]}.png"
        path.unlink()
        if value is not None:
            Image.fromarray(value).save(path)


SQUARE = np.zeros((24, 24), np.uint8)


@pytest.mark.parametrize(
    "pixels, settings, words",
    [
        (dict(_00=np.zeros((20, 20), np.uint8)), {}, "found a mask of 20 x 20 px for image '00.png' of 24 x 24 px"),
        (dict(_03=SQUARE + 9), dict(classes=BOTH_MASKS), "found value 9 in the mask of image '03.png'"),
        (dict(_03=None), {}, "found image '03.png' without a mask"),
        ({}, dict(classes=["a", "b"]), "found value 2 in the mask of image"),
        ({}, dict(classes=["a", "b", "b"]), "with different names"),
        ({}, dict(mask_format="colors", classes=BOTH_MASKS), "mask format 'colors' without colours"),
        ({}, dict(architecture="unett"), "unknown architecture 'unett': did you mean 'unet'"),
        ({}, dict(class_balanced=True), "class_balanced means nothing to a run of segmentation"),
        ({}, dict(task="classification", method="fixmatch"), "nothing to a run of classification"),
        ({}, dict(method="flexmatch"), "flexmatch is a method for classification"),
        ({}, dict(method="fixmatch", preset="cifar"), "unknown preset of fixmatch 'cifar'"),
        ({}, dict(metric_for_best_model="sel"), "metric_for_best_model is 'sel'"),
        ({}, dict(scale=[1.5, 0.5]), "It must be two factors"),
        ({}, dict(split=None), "found neither"),
        ({}, dict(method="cutmix", batch_size=1), "sees 1 unlabeled image, but CutMix mixes at least 2"),
        ({}, dict(test_dataset_split="validation"), "found no folder for split 'validation'"),
    ],
)
def test_bad_input_is_refused(pixels, settings, words, masked, tmp_path):
    shutil.copytree(masked, tmp_path / "data")
    rewrite(tmp_path / "data", **pixels)
    (tmp_path / "labeled.txt").write_text("00\n03\n")
    given = {k: v for k, v in SEGMENT.items() if k != "num_labels"}
    given |= dict(
        dataset=str(tmp_path / "data"),
        split=str(tmp_path / "labeled.txt"),
        method="supervised",
        output_dir=str(tmp_path / "run"),
    )
    with pytest.raises(UserError) as e:
        finetune(**{**given, **settings})
    assert words in str(e.value), str(e.value)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_manifest_that_names_an_image_without_a_mask_is_refused(masked):
    source = load_segmentation(masked)
    for part in ("labeled", "validation", "test"):
        parts = {"labeled": {"00.png": None}, "validation": ["01.png"], "test": ["02.png"]}
        parts[part] = {"15.png": None} if part == "labeled" else ["15.png"]
        split = Split(dataset=source.name, class_names=source.class_names, **parts)
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(UserError, match="found image '15.png' of the split without a mask"),
        ):
            patch.setattr(Split, "load", lambda path: split)
            read_split(FinetuneConfig(dataset=str(masked), split="split.json"), source)


def test_binary_masks_have_to_be_declared(masked, tmp_path):
    shutil.copytree(masked, tmp_path / "data")
    for path in (tmp_path / "data" / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)
    settings = dict(SEGMENT, dataset=str(tmp_path / "data"), method="supervised", max_steps=1)
    with pytest.raises(UserError, match="declare mask format 'binary'"):
        finetune(**settings, output_dir=str(tmp_path / "a"))
    run = finetune(**settings, mask_format="binary", output_dir=str(tmp_path / "b"))
    assert run.metrics["class_names"] == ["background", "object"] and "object_jaccard" in run.metrics


def test_a_mask_of_ignored_pixels_alone_is_a_warning(masked, tmp_path, caplog):
    """Its crops hold no pixel that counts: a loss of 0, not NaN."""
    shutil.copytree(masked, tmp_path / "data")
    rewrite(tmp_path / "data", _00=SQUARE + 255)
    (tmp_path / "labeled.txt").write_text("00\n03\n")
    settings = {k: v for k, v in SEGMENT.items() if k != "num_labels"} | dict(
        batch_size=1, logging_steps=1, method="supervised"
    )
    run = finetune(
        **settings,
        dataset=str(tmp_path / "data"),
        split=str(tmp_path / "labeled.txt"),
        output_dir=str(tmp_path / "run"),
    )
    assert "mask of image '00.png' has no pixel of any class" in caplog.text
    losses = [row["loss"] for row in run.progress.history if "loss" in row]
    assert (
        0.0 in losses and max(losses) > 0 and all(row["skipped"] == 0 for row in run.progress.history if "loss" in row)
    )


def test_every_method_has_settings():
    """Defaults of segmentation, not of a classifier's paper, also for the methods that do both."""
    from hf_lowlabel.arguments import FinetuneConfig

    for name in (n for n in methods_for("finetune") if "segmentation" in find(n).tasks):
        config = FinetuneConfig(task="segmentation", dataset="shapes", method=name).resolved()
        assert config.unlabeled_ratio == 1 and config.batch_size <= 20 and config.learning_rate <= 1e-3, name


def test_streaming_sees_what_a_resident_pool_shows(masked, tmp_path):
    for name, streaming in (("resident", False), ("streaming", True)):
        finetune(
            **SEGMENT,
            dataset=str(masked),
            method="cutmix",
            streaming=streaming,
            workers=0,
            output_dir=str(tmp_path / name),
        )
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("resident", "streaming"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_masks_here_and_raw_images_there(masked, tmp_path, monkeypatch):
    """Masks beside the second source's images are not images, and not used. Windows are for the evaluation too."""
    windows, real = [], segment_run.probabilities
    for module in (segment_run, segmentation):  # pictures and metrics
        monkeypatch.setattr(
            module,
            "probabilities",
            lambda model, x, window=None, *more: windows.append(window) or real(model, x, window, *more),
        )
    run = finetune(
        **SEGMENT,
        dataset=str(masked),
        unlabeled_dataset=str(masked),
        method="fixmatch",
        window=18,
        output_dir=str(tmp_path),
    )
    assert len(windows) > 3 and set(windows) == {(18, 18)}
    assert len(run.recorder.pools["training"]) == 18 - 3 + 18 and len(run.recorder.pools["labeled"]) == 4

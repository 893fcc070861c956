"""Each recipe of segmentation starts, on generated images in the layout of its data set: two steps of every stage."""

import importlib
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.data.masks.mask_folders import CITYSCAPES_IDS
from hf_lowlabel.methods import find

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = ["--model=test_resnet", "--from-scratch", "--max-steps=100", "--batch-size=2"]


def photo(path: Path, size: tuple[int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def mask(path: Path, size: tuple[int, int], values, mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.resize(np.asarray(values, np.uint8), size)
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    image.save(path)


def voc(root: Path) -> list[str]:
    lists = {"trainaug": [f"2007_{i:06d}" for i in range(6)], "val": ["2008_000001", "2008_000002"]}
    for name, ids in lists.items():
        (root / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids))
        for k, i in enumerate(ids):
            photo(root / "JPEGImages" / f"{i}.jpg", (40, 44 + k), k)
            mask(root / "SegmentationClassAug" / f"{i}.png", (40, 44 + k), [0, 1, 15, 20, 255], "L")
    (root / "list.txt").write_text("2007_000001\n2007_000004\n")
    return ["--image-size=32", "--output-stride=8", f"--labeled={root / 'list.txt'}"]


def cityscapes(root: Path) -> list[str]:
    for part, city, count in (("train", "ulm", 6), ("val", "lindau", 2)):
        for i in range(count):
            name = f"{city}_{i:06d}_000019"
            photo(root / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png", (64, 128), i)
            mask(root / "gtFine" / part / city / f"{name}_gtFine_labelIds.png", (64, 128), CITYSCAPES_IDS + (0, 4), "L")
    (root / "list.txt").write_text(
        "".join(f"leftImg8bit/train/ulm/ulm_{i:06d}_000019_leftImg8bit.png\n" for i in (1, 3))
    )
    return ["--long-side=96", "--output-stride=8", f"--labeled={root / 'list.txt'}"]


def isic(root: Path) -> list[str]:
    for part, count in (("train", 8), ("test", 2)):
        for i in range(count):
            photo(root / part / "images" / f"ISIC_{i:07d}.jpg", (48, 60), i)
            mask(root / part / "masks" / f"ISIC_{i:07d}_segmentation.png", (48, 60), [0, 255], "L")
    return ["--long-side=50", "--image-size=32", "--num-labels=3", "--pretrain-batch-size=4"]


def camvid(root: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part, count in (("train", 6), ("val", 2), ("test", 2)):
        columns = {"image": [], "mask": [], "filename": [f"{part}{i}" for i in range(count)]}
        for i in range(count):
            for column, draw in (
                ("image", lambda p, i=i: photo(p, (36, 48), i)),
                ("mask", lambda p: mask(p, (36, 48), range(12))),
            ):
                draw(root / "one.png")
                columns[column].append({"bytes": (root / "one.png").read_bytes(), "path": None})
        (root / "data").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), root / "data" / f"{part}-00000-of-00001.parquet")
    (root / "one.png").unlink()
    return ["--image-size=32", "--output-stride=8", "--num-labels=3", "--rows", "cutmix+", "supervised"]


@pytest.mark.parametrize(
    "name, build",
    [
        ("pixpro_cutmix_voc", voc),
        ("pixpro_cutmix_cityscapes", cityscapes),
        ("byol_cutmix_isic", isic),
        ("pixpro_cutmix_camvid", camvid),
    ],
)
def test_dry_run(name, build, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    own = build(tmp_path / "data")
    monkeypatch.setattr(sys, "argv", [name, "--dataset", str(tmp_path / "data"), "--dry-run", *SMALL, *own])
    runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")
    text = capsys.readouterr().out
    assert "masks: mean IoU" in text
    assert not (tmp_path / "runs").exists()  # a dry run leaves nothing


@pytest.mark.parametrize("method", ["cutmix", "supervised"])
@pytest.mark.parametrize("name", ["voc", "cityscapes"])
def test_settings_are_those_of_the_preset(name, method, tmp_path, monkeypatch):
    """`finetune --method cutmix --preset` and the recipe are one way; the baseline is trained as CutMix is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(RECIPES))
    calls = []

    def note(**settings):
        calls.append(settings)
        masks = SimpleNamespace(split=SimpleNamespace(labeled={}))
        return SimpleNamespace(recorder=masks, metrics={"miou": 0.0})

    monkeypatch.setattr(importlib.import_module("pixpro_cutmix"), "finetune", note)
    for more in ([], ["--from-scratch"]):
        monkeypatch.setattr(sys, "argv", [name, "--pretrain-epochs", "0", "--method", method, *more])
        runpy.run_path(str(RECIPES / f"pixpro_cutmix_{name}.py"), run_name="__main__")
    preset = dict(find("cutmix").presets[name])
    colors = preset.pop("method_args")
    arguments = colors if method == "cutmix" else dict(strong=False)
    told, scratch = calls
    assert {k: told[k] for k in preset} == preset and told["method_args"] == arguments
    assert not scratch["freeze_norm"] and told["output_dir"] != scratch["output_dir"]


def test_masks_of_other_numbers_and_starts_follow_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(RECIPES))
    own = [*isic(tmp_path / "data"), "--dataset", str(tmp_path / "data"), *SMALL, "--max-steps=1"]
    for more in (
        ["--pretrain-epochs=1"],
        ["--pretrain-epochs=1", "--num-labels=4", "--resume"],
        ["--pretrain-epochs=0"],
    ):
        monkeypatch.setattr(sys, "argv", ["byol_cutmix_isic", *own, *more])
        runpy.run_path(str(RECIPES / "byol_cutmix_isic.py"), run_name="__main__")
    assert {str(p.parent.relative_to(tmp_path / "runs/byol-cutmix-isic")) for p in tmp_path.rglob("run.json")} == {
        "byol-test-resnet-from-scratch-12345/byol",
        "byol-test-resnet-from-scratch-12345/cutmix-3",
        "byol-test-resnet-from-scratch-12345/cutmix-4",
        "test-resnet-from-scratch-12345/cutmix-3",
    }

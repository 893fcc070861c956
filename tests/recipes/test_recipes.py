"""Every recipe runs on generated images in the columns and splits of the published data sets."""

import importlib
import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from hf_lowlabel.methods import METHODS, find
from hf_lowlabel.tasks import get_task

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def write(folder: Path, split: str, labels: list[int], classes: int, column: str, side: int, image: str) -> None:
    """One parquet file, as `datasets` writes them: classes differ by brightness."""
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pictures

    rng = np.random.default_rng(len(labels))
    pictures = [
        Pictures.fromarray((rng.integers(0, 60, (side, side, 3)) + 190 * max(k, 0) // classes).astype(np.uint8))
        for k in labels
    ]
    features = {image: Image(), column: ClassLabel(names=[f"class {k}" for k in range(classes)])}
    columns = {image: pictures, column: labels}
    if column == "fine_label":  # CIFAR-100 has two columns of classes
        features["coarse_label"], columns["coarse_label"] = ClassLabel(names=["a", "b"]), [0] * len(labels)
    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns, features=Features(features)).to_parquet(folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> dict[str, str]:
    """Local copies, 24 training and 12 test images of 3 classes at 16 px."""
    root = tmp_path_factory.mktemp("copies")
    for name, image, column, test in (
        ("cifar10", "img", "label", "test"),
        ("cifar100", "img", "fine_label", "test"),
        ("svhn", "image", "label", "test"),
        ("stl10", "image", "label", "test"),
        ("imagenet", "image", "label", "validation"),
    ):
        write(root / name / "data", "train", [i % 3 for i in range(24)], 3, column, 16, image)
        write(root / name / "data", test, [i % 3 for i in range(12)], 3, column, 16, image)
        if name == "stl10":
            write(root / name / "data", "unlabeled", [-1] * 20, 3, column, 16, image)
    return {p.name: str(p) for p in root.iterdir()}


def run(monkeypatch, tmp_path, name: str, *arguments) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, arguments)])
    runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")


TINY = ("--model", "wrn_10_2", "--num-labels", 6, "--dry-run")
DRY = [
    ("target_pretraining", "cifar10", (*TINY, "--from-scratch", "--image-size", 16)),
    (
        "target_pretraining",
        "cifar100",
        (*TINY, "--from-scratch", "--image-size", 16, "--method", "self-tuning", "--pretrain", "moco"),
    ),
    ("target_pretraining", "svhn", (*TINY, "--from-scratch", "--image-size", 16, "--pretrain", "none")),
    ("byol_fixmatch_cifar10", "cifar10", (*TINY, "--from-scratch", "--image-size", 16, "--method", "uda")),
    ("from_scratch", "cifar10", (*TINY, "--method", "fixmatch")),
    ("from_scratch", "cifar100", (*TINY, "--pretrain", "simsiam")),
    ("from_scratch", "svhn", (*TINY, "--method", "mixmatch")),
    ("from_scratch", "stl10", (*TINY, "--method", "flexmatch")),
    ("imagenet", "imagenet", (*TINY, "--image-size", 16, "--method", "fixmatch-eman", "--workers", 0)),
    (
        "imagenet",
        "imagenet",
        (*TINY, "--image-size", 16, "--method", "s4l-rotation", "--pretrain", "byol-eman", "--workers", 0),
    ),
    ("moam", "imagenet", (*TINY, "--image-size", 16, "--stored-size", 16)),
    ("alternating_optimisation", "svhn", (*TINY, "--image-size", 16)),
]


@pytest.mark.parametrize("recipe, benchmark, arguments", DRY)
def test_dry_run_of_the_published_schema(recipe, benchmark, arguments, copies, tmp_path, monkeypatch, capsys):
    """--dry-run keeps nothing. The batches of the papers are cut to what 24 images need."""
    small_batches(monkeypatch)
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.setitem(importlib.import_module("data_sets").SMALL["stl10"], "image_size", 16)
    more = ("--unlabeled-dataset", copies["stl10"]) if benchmark == "stl10" else ()
    run(monkeypatch, tmp_path, recipe, "--benchmark", benchmark, "--dataset", copies[benchmark], *arguments, *more)
    assert not list(tmp_path.iterdir())


def own_photos(folder: Path) -> Path:
    """24 images of noise in two folders of classes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(24):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / "ab"[i % 2] / f"{i}.png")
    return folder


OWN = {
    "target_pretraining": ("--image-size", 16, "--from-scratch", "--pretrain-epochs", 1, "--max-steps", 1),
    "from_scratch": ("--pretrain", "simsiam", "--pretrain-epochs", 1, "--max-steps", 1),
    "imagenet": ("--image-size", 16, "--pretrain", "byol", "--method", "fixmatch", "--epochs", 1, "--workers", 0),
    "alternating_optimisation": ("--image-size", 16, "--pretrain-epochs", 1, "--cycles", 1, "--epochs", 1),
}


@pytest.mark.parametrize("recipe", OWN)
def test_own_photos_that_are_tested_on_are_not_pretrained_on(recipe, tmp_path_factory, tmp_path, monkeypatch):
    """Whatever is labeled: the test images are those of the seed."""
    small_batches(monkeypatch)
    monkeypatch.setitem(find("byol").presets["imagenet"], "epochs", 1)
    photos = own_photos(tmp_path_factory.mktemp("own"))
    flags = ("--dataset", photos, "--seed", 1, "--model", "wrn_10_2", "--num-labels", 6, *OWN[recipe])
    run(monkeypatch, tmp_path, recipe, *flags)
    runs = [p.parent for p in tmp_path.rglob("run.json")]
    held = {tuple(sorted(json.loads((p / "split.json").read_text())["test"])) for p in runs}
    assert len(held) == 1 and len(held.pop()) == 5
    assert len(runs) == (3 if recipe == "alternating_optimisation" else 2)
    assert not any(stage["saw_test"] for p in runs for stage in json.loads((p / "run.json").read_text())["lineage"])


@pytest.mark.parametrize("recipe", ["moam", "vpet"])
def test_own_photos_need_no_columns_and_splits_of_a_benchmark(recipe, tmp_path_factory, tmp_path, monkeypatch):
    from hf_lowlabel.models import create_backbone

    small_batches(monkeypatch)
    photos = own_photos(tmp_path_factory.mktemp("own"))
    flags = TINY
    if recipe == "vpet":
        size = dict(depth=1, embed_dim=24, num_heads=2, patch_size=4)
        vit = create_backbone("vit_tiny_patch16_224", pretrained=False, image_size=16, model_args=size)
        vit.save_pretrained(photos.parent / "own-vit")
        flags = ("--backbones", photos.parent / "own-vit", "--ranks", "--batch-size", 4, *TINY[2:])
    run(monkeypatch, tmp_path, recipe, "--dataset", photos, "--image-size", 16, *flags)
    assert not list(tmp_path.iterdir())


def test_the_transfer_matrix_takes_no_data_set_in_the_place_of_all_three(tmp_path, monkeypatch, capsys):
    for flag in ("--dataset", "--benchmark", "--unlabeled-dataset"):
        with pytest.raises(SystemExit):
            run(monkeypatch, tmp_path, "transfer_matrix", flag, "photos", "--dry-run")
        assert f"unrecognized arguments: {flag} photos" in capsys.readouterr().err


def test_dry_run_of_as3l_from_a_backbone_keeps_nothing(copies, tmp_path_factory, tmp_path, monkeypatch):
    small_batches(monkeypatch)
    from hf_lowlabel.models import create_backbone

    start = tmp_path_factory.mktemp("start")
    create_backbone("wrn_10_2", pretrained=False, image_size=16).save_pretrained(start)
    run(
        monkeypatch,
        tmp_path,
        "as3l_cifar10",
        "--dataset",
        copies["cifar10"],
        "--num-labels",
        6,
        "--backbone",
        start,
        "--dry-run",
    )
    assert not list(tmp_path.iterdir())


def small_batches(monkeypatch):
    """Batches of 4 in every default and preset: a recipe's own settings stay as they are."""
    for spec in map(find, METHODS):
        for values in (spec.defaults, *spec.presets.values()):
            if "batch_size" in values:
                monkeypatch.setitem(values, "batch_size", 4)

    for values in get_task("classification").fallbacks.values():
        monkeypatch.setitem(values, "batch_size", 4)
    for name, args in {
        "byol": dict(hidden=16),
        "byol-eman": dict(hidden=16),
        "simsiam": dict(hidden=16, out=16),
        "moco": dict(queue=16),
    }.items():
        for values in (find(name).defaults, *find(name).presets.values()):
            monkeypatch.setitem(values, "method_args", args)


def test_transfer_matrix_is_printed_and_goes_on(copies, tmp_path, monkeypatch, capsys):
    small_batches(monkeypatch)
    arguments = (
        "--local",
        f"cifar10={copies['cifar10']}",
        f"svhn={copies['svhn']}",
        "--sources",
        "none",
        "svhn",
        "--targets",
        "cifar10",
        "svhn",
        "--model",
        "wrn_10_2",
        "--from-scratch",
        "--image-size",
        16,
        "--pretrain-epochs",
        1,
        "--max-steps",
        2,
    )
    monkeypatch.setattr("hf_lowlabel.tasks.base.make_split", fewer_labels)
    run(monkeypatch, tmp_path, "transfer_matrix", *arguments)
    first = capsys.readouterr().out
    assert re.search(r"\| none \| \d+\.\d\d \| \d+\.\d\d \|\n\| svhn \| \d+\.\d\d \| \d+\.\d\d \|", first)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.json")}
    assert len(before) == 5
    run(monkeypatch, tmp_path, "transfer_matrix", *arguments)
    assert capsys.readouterr().out.splitlines()[-3:] == first.splitlines()[-3:]
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.json")}
    for flag, was, now in (("--max-steps", 2, 3), ("--pretrain-epochs", 1.0, 2.0), ("--image-size", 16, 24)):
        with pytest.raises(SystemExit, match=f"^error: .* holds runs of {flag} {was}, and this is {now}"):
            run(monkeypatch, tmp_path, "transfer_matrix", *arguments, flag, now)
    run(monkeypatch, tmp_path, "transfer_matrix", *arguments, "--seed", 1, "--sources", "none", "--targets", "svhn")
    assert {p.parents[1].name: p.parent.name for p in {*tmp_path.rglob("metrics.json")} - {*before}} == {
        "wrn-10-2-from-scratch-1": "none-svhn"
    }


def fewer_labels(source, number, **kwargs):
    from hf_lowlabel.data.splits.drawing import make_split

    return make_split(source, 6, **kwargs)


def test_moam_in_three_steps(copies, tmp_path, monkeypatch, capsys):
    """Step 2 takes a pseudo-label for every image, step 3 the given labels again."""
    from hf_lowlabel.data.splits.splits import Split

    small_batches(monkeypatch)
    run(
        monkeypatch,
        tmp_path,
        "moam",
        "--benchmark",
        "cifar10",
        "--dataset",
        copies["cifar10"],
        "--model",
        "wrn_10_2",
        "--num-labels",
        6,
        "--image-size",
        12,
        "--stored-size",
        16,
        "--epochs",
        40,
        2,
        20,
    )
    assert len(re.findall(r"step \d: top-5", capsys.readouterr().out)) == 3
    splits = [Split.load(p / "split.json") for p in sorted((tmp_path / "runs" / "moam").glob("*/?-*"))]
    assert [len(s.labeled) for s in splits] == [6, 24, 6] and splits[2].labeled == splits[0].labeled
    assert all(splits[1].labeled[id] == name for id, name in splits[0].labeled.items())
    last = next(tmp_path.rglob("3-labels/training.yaml")).read_text()
    assert re.search(r"method_args:\n +strong: false\n", last)  # crops and mirrored images alone


def test_alternating_cycles_reset_and_keep_two_thirds(copies, tmp_path, monkeypatch, capsys):
    from safetensors.numpy import load_file

    run(
        monkeypatch,
        tmp_path,
        "alternating_optimisation",
        "--benchmark",
        "cifar10",
        "--dataset",
        copies["cifar10"],
        "--model",
        "wrn_10_2",
        "--num-labels",
        6,
        "--image-size",
        16,
        "--pretrain-epochs",
        1,
        "--cycles",
        3,
        "--whole",
        1,
        "--epochs",
        2,
        "--batch-size",
        8,
    )
    assert len(re.findall(r"cycle \d: test accuracy", capsys.readouterr().out)) == 3
    root = next((tmp_path / "runs" / "alternating").iterdir())
    kept = [(load_file(root / f"cycle-{c:02d}" / "priors.safetensors")["priors"].sum(1) > 0) for c in (1, 2, 3)]
    assert [k.sum() for k in kept] == [16, 16, 24] and (kept[0] != kept[1]).any()
    start = load_file(root / "rotnet" / "model.safetensors")
    for c in (1, 2, 3):
        after = load_file(root / f"cycle-{c:02d}" / "phase-2" / "model.safetensors")
        same = {k for k in start if k in after and np.array_equal(start[k], after[k])}
        weights = {
            k for k in start if k.startswith(("conv1", "group")) and "running" not in k and "num_batches" not in k
        }
        assert {k for k in weights if k.startswith(("conv1", "group1", "group2"))} <= same and not any(
            "group3" in k for k in weights & same
        )


def test_refinement_uses_all_images_and_soft_labels(copies, tmp_path, monkeypatch):
    from safetensors.numpy import load_file

    from hf_lowlabel import finetune

    start = finetune(
        dataset=copies["cifar10"],
        model="wrn_10_2",
        from_scratch=True,
        image_size=16,
        num_labels=6,
        method="mean-teacher",
        max_steps=2,
        batch_size=4,
        unlabeled_ratio=1,
        output_dir=str(tmp_path / "mt"),
    )
    run(
        monkeypatch,
        tmp_path,
        "alternating_optimisation",
        "--dataset",
        copies["cifar10"],
        "--image-size",
        16,
        "--cycles",
        1,
        "--whole",
        0,
        "--epochs",
        1,
        "--batch-size",
        8,
        "--refine",
        start.folder,
    )
    p = load_file(next(tmp_path.rglob("cycle-01/priors.safetensors")))["priors"]
    assert np.allclose(p.sum(1), 1, atol=1e-5) and (p.max(1) < 1).any()


def test_votes_of_adapted_models(copies, tmp_path, monkeypatch, capsys):
    pytest.importorskip("peft")
    import torch
    from safetensors.numpy import load_file

    from hf_lowlabel.models import create_backbone

    for i, depth in enumerate((1, 2)):
        torch.manual_seed(i)
        create_backbone(
            "vit_tiny_patch16_224",
            pretrained=False,
            image_size=16,
            model_args=dict(depth=depth, embed_dim=24, num_heads=2, patch_size=4),
        ).save_pretrained(tmp_path / f"vit{i}")
    run(
        monkeypatch,
        tmp_path,
        "vpet",
        "--benchmark",
        "cifar100",
        "--dataset",
        copies["cifar100"],
        "--backbones",
        tmp_path / "vit0",
        tmp_path / "vit1",
        "--ranks",
        2,
        "--widths",
        3,
        "--num-labels",
        6,
        "--image-size",
        16,
        "--batch-size",
        6,
        "--max-steps",
        3,
    )
    text = capsys.readouterr().out
    assert len(re.findall("labels only, .*vit[01] (rank 2|width 3)", text)) == 4 and "self-training on 4 votes" in text
    p = load_file(next(tmp_path.rglob("priors.safetensors")))["priors"]
    assert set(np.unique(p)) <= {0, 0.25, 0.5, 0.75, 1} and np.allclose(p.sum(1), 1)


def test_pseudo_label_in_two_steps(copies, tmp_path, monkeypatch, capsys):
    """ImageNet: a supervised run labels every image, and a fresh network learns them."""
    small_batches(monkeypatch)
    monkeypatch.setitem(find("supervised").presets["imagenet-10"], "max_steps", 2)
    monkeypatch.setitem(find("self-training").presets["imagenet"], "epochs", 3)
    tiny = (
        "--dataset",
        copies["imagenet"],
        "--percent",
        10,
        "--model",
        "wrn_10_2",
        "--num-labels",
        6,
        "--image-size",
        16,
        "--workers",
        0,
    )
    run(monkeypatch, tmp_path, "imagenet", *tiny, "--method", "supervised")
    run(
        monkeypatch,
        tmp_path,
        "imagenet",
        *tiny,
        "--label-with",
        "runs/imagenet/own-imagenet-wrn-10-2-0/supervised-6-labels",
    )
    assert capsys.readouterr().out.count("top-1") == 2
    assert next(tmp_path.rglob("self-training-of-supervised-6-labels-*/model.safetensors"))


def test_every_recipe_that_takes_a_benchmark_is_tested_here():
    tested = {name for name, *_ in DRY} | {"transfer_matrix", "vpet", "byol_fixmatch_digits", "as3l_cifar10"}
    takes = {
        p.stem
        for p in RECIPES.glob("*.py")
        if re.search(r"^(    arguments\(parser,|from target_pretraining import)", p.read_text(), re.M)
    }
    assert takes == tested


def test_the_visible_loop_says_bad_input_in_a_sentence(tmp_path, monkeypatch):
    for flags, said in (
        (("--num-labels", 5), "5 labels cannot cover 10 classes"),
        (("--dataset", "nowhere/"), "nowhere"),
    ):
        with pytest.raises(SystemExit, match=f"^error: .*{said}"):
            run(monkeypatch, tmp_path, "visible_loop", *flags, "--dry-run")
    assert not list(tmp_path.iterdir())


def test_the_visible_loop_trains_and_saves(tmp_path, monkeypatch, capsys):
    """Its loss is that of `finetune` with the same settings, and what it saves is a model."""
    from hf_lowlabel import finetune, load_source, predict

    tiny = dict(model="cnn6_16", image_size=16, num_labels=20, batch_size=10, unlabeled_ratio=2, max_steps=3)
    flags = [text for name, value in tiny.items() for text in (f"--{name.replace('_', '-')}", value)]
    run(monkeypatch, tmp_path, "visible_loop", *flags, "--dry-run")
    assert not list(tmp_path.iterdir())
    run(monkeypatch, tmp_path, "visible_loop", *flags, "--output-dir", "out")
    losses = [float(value) for value in re.findall(r"/3  loss ([\d.]+)", capsys.readouterr().out)]
    same = dict(
        dataset="digits",
        from_scratch=True,
        class_balanced=True,
        stored_size=16,
        metric_for_best_model="last",
    )
    done = finetune(**tiny, **same, logging_steps=1, eval_steps=9, output_dir=str(tmp_path / "run"))
    assert losses == pytest.approx([row["loss"] for row in done.history if "loss" in row], abs=2e-3)
    load_source("digits").image(0).resize((16, 16)).save(tmp_path / "digit.png")
    (row,) = predict(tmp_path / "digit.png", str(tmp_path / "out")).rows
    assert row["class"] in set("0123456789")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "visible_loop", *flags, "--output-dir", "out", "--method", "flexmatch")
    assert "--output-dir out is not empty; give another" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("method", ["probe", "byol", "self-training", "cutmix"])
def test_the_visible_loop_refuses_methods_that_it_cannot_train(method, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "visible_loop", "--method", method)
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"error: --method {method} is none for this loop; expected" in said and not list(tmp_path.iterdir())


def test_the_visible_loop_trains_on_labels_alone_too(tmp_path, monkeypatch, capsys):
    tiny = ("--model", "cnn6_16", "--num-labels", 20, "--batch-size", 4, "--unlabeled-ratio", 1, "--method")
    run(monkeypatch, tmp_path, "visible_loop", *tiny, "supervised", "--dry-run")
    assert "step 2/2" in capsys.readouterr().out


ALTERNATE = ("--benchmark", "cifar10", "--model", "wrn_10_2", "--image-size", 16, "--cycles", 1, "--batch-size", 8)
ALTERNATE = (*ALTERNATE, "--pretrain-epochs", 1, "--whole", 0)


def test_a_cycle_of_other_flags_is_not_taken_for_one_of_these(copies, tmp_path, monkeypatch, capsys):
    """Another rate is refused before anything is computed; a refinement, another start, has a folder of its own."""
    again = (*ALTERNATE, "--dataset", copies["cifar10"])
    flags = (*again, "--num-labels", 6)
    run(monkeypatch, tmp_path, "alternating_optimisation", *flags, "--epochs", 1)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for flag, was, now in (("--epochs", 1.0, 2.0), ("--learning-rate", 0.02, 0.5), ("--freeze", 2, 1)):
        said = f"holds runs of {flag} {was}, and this is {now}. Give {was}, or another --output-dir"
        with pytest.raises(SystemExit, match=re.escape(said)):
            run(monkeypatch, tmp_path, "alternating_optimisation", *flags, "--epochs", 1, flag, now, "--resume")
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    start = next(tmp_path.rglob("phase-2"))
    capsys.readouterr()
    run(monkeypatch, tmp_path, "alternating_optimisation", *again, "--epochs", 1, "--refine", start)
    folders = sorted(p.parents[1] for p in tmp_path.rglob("phase-2"))
    assert len(folders) == 2 and all((p / "cycle-01/phase-2/metrics.json").is_file() for p in folders)
    (start.parent / "phase-1" / "metrics.json").unlink()  # as if killed there
    run(monkeypatch, tmp_path, "alternating_optimisation", *flags, "--epochs", 1, "--resume")
    assert capsys.readouterr().out.count("cycle 1: test accuracy") == 2


def test_commands_of_other_data_starts_and_methods_follow_each_other(copies, tmp_path, monkeypatch):
    """None is in the way of another; pretraining of other flags is not gone on with."""
    small_batches(monkeypatch)
    flags = ("--model", "wrn_10_2", "--num-labels", 6, "--image-size", 16, "--max-steps", 2, "--pretrain-epochs", 1)
    flags = (*flags, "--from-scratch", "--dataset", copies["cifar10"])
    for more in (
        ("--benchmark", "cifar10"),
        ("--benchmark", "cifar10", "--pretrain", "none"),
        ("--benchmark", "cifar10", "--method", "supervised", "--resume"),  # which takes the BYOL of the first
        ("--benchmark", "cifar10", "--pretrain", "none", "--seed", 1),
    ):
        run(monkeypatch, tmp_path, "target_pretraining", *flags, *more)
    assert {str(p.parent.relative_to(tmp_path / "runs/target-pretraining")) for p in tmp_path.rglob("run.json")} == {
        "cifar10-wrn-10-2-from-scratch-0/byol",
        "cifar10-wrn-10-2-from-scratch-0/byol-fixmatch-6",
        "cifar10-wrn-10-2-from-scratch-0/fixmatch-6",
        "cifar10-wrn-10-2-from-scratch-0/byol-supervised-6",
        "cifar10-wrn-10-2-from-scratch-1/fixmatch-6",
    }
    with pytest.raises(SystemExit, match="^error: .* holds runs of --pretrain-epochs 1.0, and this is 3.0"):
        run(monkeypatch, tmp_path, "target_pretraining", *flags, "--pretrain-epochs", 3, *more[:2], "--resume")


def test_digits_start_and_go_on(tmp_path, monkeypatch, capsys):
    """A dry run keeps nothing; a chain that was stopped goes on, of the same flags alone."""
    from hf_lowlabel import demo_stages

    for settings in (demo_stages.DIGITS_FINETUNE, demo_stages.DIGITS_PRETRAIN["byol"]):
        monkeypatch.setitem(settings, "max_steps", 2)
    monkeypatch.setitem(demo_stages.DIGITS_SHARED, "model", "cnn6_16")
    run(monkeypatch, tmp_path, "byol_fixmatch_digits", "--dry-run")
    assert not list(tmp_path.iterdir())
    run(monkeypatch, tmp_path, "byol_fixmatch_digits")
    first = capsys.readouterr().out
    shutil.rmtree(next(tmp_path.rglob("model")))  # as if stopped before it
    run(monkeypatch, tmp_path, "byol_fixmatch_digits", "--resume")
    assert capsys.readouterr().out == first and "BYOL, priors, FlexMatch: " in first
    run(monkeypatch, tmp_path, "byol_fixmatch_digits", "--num-labels", 10)
    assert len([*tmp_path.rglob("model/run.json")]) == 2


def test_as3l_goes_on_with_the_labels_that_it_chose(copies, tmp_path_factory, tmp_path, monkeypatch, capsys):
    """Another strategy has a folder of its own; other flags are refused in this one."""
    small_batches(monkeypatch)
    from hf_lowlabel.models import create_backbone

    start = tmp_path_factory.mktemp("start")
    create_backbone("wrn_10_2", pretrained=False, image_size=16).save_pretrained(start)
    flags = ("--dataset", copies["cifar10"], "--num-labels", 6, "--backbone", start, "--max-steps", 2)
    run(monkeypatch, tmp_path, "as3l_cifar10", *flags)
    first = capsys.readouterr().out.splitlines()[-1]
    chosen = {p: p.read_bytes() for p in tmp_path.rglob("split.json")}
    shutil.rmtree(next(tmp_path.rglob("flexmatch")))  # as if stopped before it
    run(monkeypatch, tmp_path, "as3l_cifar10", *flags, "--resume")
    assert capsys.readouterr().out.splitlines()[-1] == first
    assert chosen == {p: p.read_bytes() for p in tmp_path.rglob("split.json")}
    with pytest.raises(SystemExit, match="^error: .* holds runs of --prior-until"):
        run(monkeypatch, tmp_path, "as3l_cifar10", *flags, "--resume", "--prior-until", 0.5)
    run(monkeypatch, tmp_path, "as3l_cifar10", *flags, "--strategy", "random", "--no-priors")
    assert len([*tmp_path.rglob("flexmatch/run.json")]) == 2

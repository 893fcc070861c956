"""What a task decides: its methods, how data is opened and split, sizes of views, and what a cache says of its
images."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel import api, load_source, make_split
from hf_lowlabel.arguments import Config, DataArguments, ViewArguments
from hf_lowlabel.cli import main
from hf_lowlabel.data.caches.image_cache import ResidentCache
from hf_lowlabel.errors import UserError
from hf_lowlabel.methods import find, name_of
from hf_lowlabel.models import create_backbone
from hf_lowlabel.settings import resolve
from hf_lowlabel.tasks import TASKS, caching, get_task, networks
from hf_lowlabel.tasks.base import Examples
from hf_lowlabel.tasks.testing import test_images as known_images
from hf_lowlabel.training import setup

from .conftest import FINETUNE, PRETRAIN, SEGMENT

PHOTOS = get_task("classification")


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
@pytest.mark.parametrize("task", TASKS)
def test_every_method_of_a_task_has_settings(task, verb):
    """Those of the task, not of another task's paper, where a method does both; and the name under which it was
    found."""
    kind = get_task(task)
    assert kind.default_methods[verb] in kind.methods(verb) and set(kind.own_methods) <= set(kind.methods("finetune"))
    for name in kind.methods(verb):
        prior = {"prior": __file__} if find(name).prior == "must" else {}
        config = resolve(Config.from_flat(verb, {"task": task, "dataset": "digits", "method": name, **prior}))
        assert name_of(config.method) == name and task in config.method.tasks or verb == "pretrain"
        args = config.training
        if config.method.frozen:
            assert args.max_steps is args.batch_size is args.learning_rate is None
            continue
        needed = [args.batch_size, args.optimizer, args.learning_rate, args.weight_decay, args.lr_scheduler_type]
        assert None not in [*needed, args.head_lr, args.warmup_ratio, args.max_steps or args.epochs]
        if verb == "finetune":
            assert args.unlabeled_ratio is not None
        if verb == "finetune" and task == "segmentation":
            assert args.unlabeled_ratio == 1 and args.batch_size <= 20 and args.learning_rate <= 1e-3, name
            assert len(config.views.scale) == 2


@pytest.mark.parametrize("task", TASKS)
def test_a_method_for_other_tasks_is_refused(task):
    name = "cutmix" if task == "classification" else "vat"
    with pytest.raises(UserError, match=f"{name} is a method for .*Give --task .*, or --method with one of .*fixmatch"):
        get_task(task).method("finetune", name)


def test_images_of_an_unlabeled_split_need_their_option(tmp_path, caplog):
    for name in [f"train/{c}/{i}" for c in ("cat", "dog") for i in range(5)] + ["unlabeled/camera1/0"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    assert PHOTOS.open(DataArguments(str(tmp_path))).class_names == ["cat", "dog"]
    assert f"take --unlabeled-dataset {tmp_path} --unlabeled-dataset-split unlabeled" in caplog.text
    caplog.clear()
    more = dict(unlabeled_dataset=str(tmp_path), unlabeled_dataset_split="unlabeled")
    both = PHOTOS.open(DataArguments(str(tmp_path), **more))
    assert len(both) == 11 and both.class_names == ["cat", "dog"] and not caplog.text


def test_a_test_split_without_labels_is_no_test_set(tmp_path, caplog):
    """Unlabeled test images, as competitions give them: the labeled validation images are the test set, else some
    held out."""
    for name in [f"train/{c}/{i}" for c in ("cat", "dog") for i in range(5)] + [
        "test/0",
        "test/1",
        "validation/cat/0",
        "validation/dog/0",
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    data = DataArguments(str(tmp_path), num_labels=2, test_fraction=0.2)

    def choose(data):
        chosen = PHOTOS.choose_split(data, 0, load_source(str(tmp_path)))
        return chosen.split, chosen.test, chosen.test_at

    split, images, at = choose(data)
    assert images.split == "validation" and at.tolist() == [0, 1] and not split.test
    assert "No image in split 'test'" in caplog.text
    make_split(load_source(str(tmp_path)), 2, test_fraction=0.4).save(tmp_path / "split.json")
    split, images, at = choose(DataArguments(str(tmp_path), split=str(tmp_path / "split.json")))
    assert images.split == "train" and len(at) == len(split.test) == 4  # the manifest's own come first
    named = DataArguments(str(tmp_path), split=str(tmp_path / "split.json"), test_dataset_split="validation")
    split, images, at = choose(named)
    assert images.split == "validation" and at.tolist() == [0, 1] and len(split.test) == 4  # but for a split by name
    with pytest.raises(UserError, match="nonesuch"):
        choose(replace(named, test_dataset_split="nonesuch"))
    (tmp_path / "validation").rename(tmp_path / ".away")
    split, images, at = choose(data)
    assert images.split == "train" and len(at) == len(split.test) == 2
    named = DataArguments(str(tmp_path), num_labels=2, test_dataset_split="test")
    with pytest.raises(UserError, match="No image in split 'test'.*nothing to test on. Give another --test-dataset-s"):
        choose(named)
    with pytest.raises(UserError, match="nothing to test on. Give another --dataset-split"):  # the flag of evaluate
        known_images(PHOTOS, named, ["cat", "dog"], None, None)


def test_all_ranks_have_the_budget_of_the_fullest(monkeypatch):
    monkeypatch.setattr(caching, "all_gather", lambda x: torch.cat([x, x // 4]))
    monkeypatch.setattr(caching, "free_memory", lambda: 2**34)
    assert caching.memory_budget(DataArguments(), torch.device("cpu")) == 2**31
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # who share the memory of one machine
    assert caching.memory_budget(DataArguments(), torch.device("cpu")) == 2**29
    assert caching.memory_budget(DataArguments(memory_budget=2.0), torch.device("cpu")) == 2**31


def test_what_a_resumed_run_must_find_again_names_the_usable_images(photos):
    source = load_source(str(photos / "labeled"))
    config = resolve(Config.from_flat("finetune", {"dataset": "digits"}))
    caches = [SimpleNamespace(indices=np.arange(n)) for n in (8, 7)]
    one, other = (setup.identity(config, source, None, cache)["data"] for cache in caches)
    assert {k for k in one if one[k] != other[k]} == {"list of usable images (see --streaming and --memory-budget)"}


def test_typical_side_is_a_short_one(photos):
    assert networks.typical_side(load_source(str(photos / "labeled"))) == 24  # of images 24 to 35 px wide


def test_sizes():
    assert networks.sizes(ViewArguments(), 224, 500) == (224, 256)
    assert networks.sizes(ViewArguments(), 224, 32) == (32, 32)
    assert networks.sizes(ViewArguments(image_size=96), 224, 500) == (96, 108)


@pytest.mark.parametrize(("side", "from_scratch"), [(32, 32), (160, 160), (500, 224)])
def test_pretrained_weights_see_small_images_enlarged(side, from_scratch):
    assert networks.sizes(ViewArguments(), 224, side)[0] == from_scratch
    assert networks.sizes(ViewArguments(), 224, side, own=True)[0] == 224
    assert networks.sizes(ViewArguments(image_size=48), 224, side, own=True)[0] == 48


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
    pool = ResidentCache(images, ["a", "b"], sizes=np.array([[6, 4], [2, 8]]))
    mean, std = caching.padded_statistics(pool)
    share = 28 / 40  # of the pixels are coloured
    assert mean == pytest.approx([share, share / 5, 0], abs=1e-6)
    assert std == pytest.approx([(share * (1 - share)) ** 0.5, (share * (1 - share)) ** 0.5 / 5, 1e-3], abs=1e-6)
    shows = get_task("segmentation").shows(Examples(pool, torch.arange(2), None), list("abcd"))
    assert shows.tolist() == [[True, False, True, False], [False, True, False, False]]


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_small_images_are_enlarged_for_pretrained_weights_alone(verb, tmp_path, caplog):
    """Digits of 8 px, for a network that learned from images of 64 px."""
    create_backbone("test_resnet", pretrained=False, image_size=64).save_pretrained(tmp_path / "weights")
    given = dict(PRETRAIN if verb == "pretrain" else FINETUNE, model=str(tmp_path / "weights"), max_steps=1)
    given = {key: value for key, value in given.items() if key not in ("image_size", "stored_size", "from_scratch")}
    for name, more, side in (("as it is", {}, 64), ("from scratch", dict(from_scratch=True), 8)):
        caplog.clear()
        with caplog.at_level("INFO"):
            getattr(api, verb)(**given, **more, output_dir=tmp_path / name)
        assert ("from images of 8 px, enlarged" in caplog.text) == (side == 64)
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["pretrained_cfg"]["input_size"] == [3, side, side]

"""The next images by what a finished model is in doubt of: the strategies, and `select` with a run as --model."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel import finetune
from hf_lowlabel.arguments import DataArguments
from hf_lowlabel.cli import main
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.mask_page import MaskSession
from hf_lowlabel.selection.by_model import as_trained, badge, in_doubt
from hf_lowlabel.tasks import get_task
from hf_lowlabel.tasks.uncertainty import Doubt

from .conftest import paint


def doubt(n=40, classes=3, width=5):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(classes) / 2, n)
    return Doubt(get_task("classification").unsure(p, "margin"), p, rng.standard_normal((n, width)))


def test_measures_of_doubt():
    kind, p = get_task("classification"), np.array([[0.5, 0.5, 0], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.6, 0.3, 0.1]])
    assert kind.unsure(p, "margin") == pytest.approx([1, 0, 1, 0.7])
    assert kind.unsure(p, "entropy") == pytest.approx([np.log(2) / np.log(3), 0, 1, 0.8173], abs=1e-4)
    several = get_task("multilabel")
    assert several.unsure(np.array([[0.5, 0.5], [0, 1]]), "margin") == pytest.approx([1, 0])
    assert several.unsure(np.array([[0.5, 0.5], [0, 1]]), "entropy") == pytest.approx([1, 0])


def test_doubtful_images_are_far_from_each_other_and_from_labeled_ones():
    d = doubt()
    half = set(np.argsort(-d.unsure)[:20].tolist())
    chosen = in_doubt(d, np.zeros((0, 5)), 6)
    assert set(chosen.tolist()) <= half and len(set(chosen.tolist())) == 6 and chosen[0] == d.unsure.argmax()
    assert set(in_doubt(d, np.zeros((0, 5)), 6, share=0).tolist()) == set(np.argsort(-d.unsure)[:6].tolist())
    second = chosen[1]
    beside = in_doubt(d, d.x[[second]], 6)  # a labeled image where the second one is
    assert second not in beside[:2] and beside[0] == chosen[0]
    every = in_doubt(d, d.x[:3], 40)
    assert sorted(every.tolist()) == list(range(40))  # also where some are where labeled ones are


def test_badge_takes_apart_gradients_in_proportion_to_their_squared_distance():
    d = doubt()
    g = ((d.p - np.eye(3)[d.p.argmax(1)])[:, :, None] * d.x[:, None]).reshape(40, -1)
    first = badge(d, np.zeros((0, 5)), 1)[0]
    assert first == np.square(g).sum(1).argmax()
    weights = np.square(g - g[first]).sum(1)
    drawn = np.bincount([badge(d, np.zeros((0, 5)), 2, seed)[1] for seed in range(3000)], minlength=40) / 3000
    np.testing.assert_allclose(drawn, weights / weights.sum(), atol=0.03)
    same = Doubt(np.zeros(5), np.tile([1.0, 0, 0], (5, 1)), np.ones((5, 2)))
    assert sorted(badge(same, np.zeros((0, 2)), 5).tolist()) == [0, 1, 2, 3, 4]  # of a model that is sure of all


# ---- the verb --------------------------------------------------------------------------------------------------------
COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def classes(tmp_path_factory, backbone):
    """24 photos of which 6 are labeled, and a run of them."""
    base = tmp_path_factory.mktemp("classes")
    names = paint(base / "photos")
    rows = [f"{name},{COLOURS[i % 3]}\n" for i, name in enumerate(names[:6])]
    (base / "labels.csv").write_text("file_name,label\n" + "".join(rows))
    table = ["split", "--dataset", str(base / "photos"), "--from", str(base / "labels.csv"), "--output"]
    assert main([*table, str(base / "split.json")]) == 0
    finetune(
        str(base / "photos"),
        model=backbone,
        method="probe",
        split=str(base / "split.json"),
        output_dir=base / "run",
        device="cpu",
    )
    return base


def chosen(folder):
    return set(Asked.load(folder).files.values())


def test_what_a_run_is_in_doubt_of_and_nothing_that_it_knows(classes, tmp_path, capsys):
    known = set(Split.load(classes / "split.json").labeled)
    argv = ["select", "--model", str(classes / "run"), "--dataset", str(classes / "photos"), "--budget", "5"]
    assert main([*argv, "--output", str(tmp_path / "a"), "--device", "cpu", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    task = Asked.load(tmp_path / "a")
    assert task.strategy == "badge" and set(said["ids"]) == chosen(tmp_path / "a") and not known & set(said["ids"])
    assert set(task.labeled) == known and said["report"]["labeled"] == 6
    suggested = json.loads((tmp_path / "a" / "suggestions.json").read_text())
    assert all(one["why"].startswith("uncertain: ") and one["looks_like"][0] in COLOURS for one in suggested.values())
    assert "uncertain: " in (tmp_path / "a" / "index.html").read_text()
    more = classes / "more.csv"
    rows = [f"{id},{COLOURS[0]}\n" for id in sorted(known | set(said["ids"]))]
    more.write_text("file_name,label\n" + "".join(rows))
    argv += ["--labels", str(more), "--strategy", "entropy", "--strategy-args", "share=0"]
    assert main([*argv, "--output", str(tmp_path / "b"), "--device", "cpu"]) == 0
    assert not chosen(tmp_path / "b") & (known | set(said["ids"]))
    for flags in (["--strategy", "margin"], ["--strategy", "as3l"]):
        argv = [
            "select",
            "--model",
            str(classes / "run"),
            "--dataset",
            str(classes / "photos"),
            "--budget",
            "5",
            *flags,
        ]
        assert main([*argv, "--output", str(tmp_path / flags[1]), "--device", "cpu"]) == 0
        assert Asked.load(tmp_path / flags[1]).strategy == flags[1]


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--strategy", "badger"], "did you mean 'badge'"),
        (["--strategy", "uncertain-pixels"], "uncertain-pixels"),
        (["--strategy", "margin", "--strategy-args", "k=3"], "'k'"),
        (["--strategy", "coreset", "--strategy-args", "k=3"], "takes no arguments"),
        (["--strategy", "typiclust", "--strategy-args", "k=many"], "Use a number"),
        (["--strategy", "usl", "--strategy-args", "k=0"], "k of the strategy usl is 0. It must be at least 1"),
        (["--features", "x.safetensors"], "Leave out --features"),
        (["--labels", "a.csv", "--split", "b.json"], "not both"),
    ],
)
def test_what_does_not_go_together(classes, tmp_path, capsys, flags, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.json"):
        (tmp_path / name).touch()
    argv = ["select", "--model", str(classes / "run"), "--dataset", str(classes / "photos"), "--budget", "5", *flags]
    assert main([*argv, "--output", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_a_run_knows_is_left_out_by_any_strategy_and_other_data_are_told(classes, tmp_path, capsys):
    split = Split.load(classes / "run" / "split.json")
    known = {*split.labeled, *split.validation, *split.test}
    count = len([*(classes / "photos").iterdir()]) - len(known)
    argv = ["select", "--model", str(classes / "run"), "--budget", str(count), "--device", "cpu"]
    how = ["--strategy", "random", "--output"]
    assert main([*argv, "--dataset", str(classes / "photos"), *how, str(tmp_path / "a")]) == 0
    assert len(chosen(tmp_path / "a")) == count and not chosen(tmp_path / "a") & known
    assert {*Asked.load(tmp_path / "a").labeled} == {*split.labeled} and "differs" not in capsys.readouterr().err
    since = tmp_path / "since.csv"
    since.write_text(f"image,label\n{min(chosen(tmp_path / 'a'))},{COLOURS[0]}\n")
    argv[argv.index("--budget") + 1] = str(count - 1)
    assert main([*argv, "--dataset", str(classes / "photos"), "--labels", str(since), *how, str(tmp_path / "s")]) == 0
    assert chosen(tmp_path / "s") == chosen(tmp_path / "a") - {min(chosen(tmp_path / "a"))}
    assert {*Asked.load(tmp_path / "s").labeled} == {*split.labeled, min(chosen(tmp_path / "a"))}
    since.write_text(f"image,label\n{min(known)},blurred\n")  # another question about the same images
    argv[argv.index("--budget") + 1] = str(len(known) + count - 1)
    assert main([*argv, "--dataset", str(classes / "photos"), "--labels", str(since), *how, str(tmp_path / "q")]) == 0


def test_a_folder_of_which_a_run_knows_the_images_may_have_changed(classes, tmp_path, capsys):
    """Photos that came since are the usual reason for another round; without those of the run it is another folder."""
    split = Split.load(classes / "run" / "split.json")
    known = {*split.labeled, *split.validation, *split.test}
    shutil.copytree(classes / "photos", tmp_path / "photos")
    paint(tmp_path / "more", 2, seed=9)
    for file in (tmp_path / "more").iterdir():
        file.rename(tmp_path / "photos" / f"new {file.name}")
    argv = ["select", "--model", str(classes / "run"), "--budget", "5", "--device", "cpu"]
    argv += ["--dataset", str(tmp_path / "photos"), "--output"]
    for name, more in (("b", ["--strategy", "random"]), ("c", [])):
        assert main([*argv, str(tmp_path / name), *more]) == 0
        assert "differs from the data of" not in capsys.readouterr().err
        assert not chosen(tmp_path / name) & known and {*Asked.load(tmp_path / name).labeled} == {*split.labeled}
    (tmp_path / "photos" / min(known)).unlink()  # names alone do not tell that these are the same photos
    for name, more in (("d", ["--strategy", "random"]), ("e", [])):
        assert main([*argv, str(tmp_path / name), *more]) == 0
        said = f"photos differs from the data of {classes / 'run'}: what that run has labels of or tests on"
        assert f"{said} is not left out" in capsys.readouterr().err and not Asked.load(tmp_path / name).labeled


@pytest.mark.parametrize("task", ["multilabel", "segmentation"])
def test_class_balanced_is_for_one_class_an_image(classes, tmp_path, capsys, task):
    argv = ["select", "--model", "test_resnet", "--dataset", str(classes / "photos"), "--task", task, "--budget", "5"]
    assert main([*argv, "--strategy", "class-balanced", "--output", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "class-balanced is for one class an image" in capsys.readouterr().err


def test_an_encoder_alone_has_no_doubts(backbone, photos, tmp_path, capsys):
    argv = ["select", "--model", backbone, "--dataset", str(photos), "--budget", "5", "--strategy", "margin"]
    assert main([*argv, "--output", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "finished" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """12 images of which 4 have masks: discs that are hard to see in half of the others; and a run of them."""
    base, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (base / "data" / kind).mkdir(parents=True)
    for i in range(12):
        y, x = np.mgrid[:32, :32]
        disc = (y - rng.integers(10, 22)) ** 2 + (x - rng.integers(10, 22)) ** 2 < 60
        pixels = rng.integers(0, 100, (32, 32, 3)) + (40 if i % 2 else 120) * disc[..., None]
        Image.fromarray(pixels.astype(np.uint8)).save(base / "data" / "images" / f"{i:02d}.png")
        if i < 4:
            Image.fromarray(disc.astype(np.uint8)).save(base / "data" / "masks" / f"{i:02d}.png")
    (base / "classes.txt").write_text("ground\ndisc\n")
    torch.manual_seed(0)
    finetune(
        str(base / "data"),
        task="segmentation",
        classes=[str(base / "classes.txt")],
        model="test_resnet.r160_in1k",
        from_scratch=True,
        method="probe",
        image_size=32,
        test_fraction=0.0,
        output_dir=base / "run",
        device="cpu",
    )
    return base


@pytest.mark.parametrize("listed", ["there", "gone"])
def test_masks_mean_what_the_run_learned(listed, masks, tmp_path):
    """Without --classes its manifest is of these data still, also where the file that lists them is gone."""
    run = tmp_path / "run"
    shutil.copytree(masks / "run", run)
    if listed == "gone":
        said = (run / "training.yaml").read_text()
        (run / "checksums.json").unlink()
        (run / "training.yaml").write_text(said.replace("classes.txt", "none.txt"))
        assert "none.txt" in (run / "training.yaml").read_text()
    argv = ["select", "--task", "segmentation", "--model", str(run), "--dataset", str(masks / "data")]
    assert main([*argv, "--budget", "3", "--device", "cpu", "--output", str(tmp_path / "out")]) == 0
    task = Asked.load(tmp_path / "out")
    assert task.class_names == ["ground", "disc"] and set(task.labeled) == {f"{i:02d}.png" for i in range(4)}
    MaskSession(tmp_path / "out", task, model=str(run))  # and so does the page


def test_images_are_read_as_the_run_read_them(classes, backbone, tmp_path, monkeypatch):
    """Its columns and its range of values; columns of its own data alone, and what is said goes before."""
    names = paint(tmp_path / "photos")
    rows = [f"{name},{i % 2},{COLOURS[i % 3] if i < 6 else ''}\n" for i, name in enumerate(names)]
    (tmp_path / "photos" / "metadata.csv").write_text("file_name,label,colour\n" + "".join(rows))
    how = dict(label_column="colour", value_range=[0, 4095], num_labels=6, test_fraction=0.0, device="cpu")
    finetune(str(tmp_path / "photos"), model=backbone, method="probe", output_dir=tmp_path / "run", **how)
    argv = ["select", "--model", str(tmp_path / "run"), "--budget", "3", "--device", "cpu", "--dataset"]
    assert main([*argv, str(tmp_path / "photos"), "--output", str(tmp_path / "a")]) == 0
    task = Asked.load(tmp_path / "a")
    assert sorted(task.class_names) == sorted(COLOURS) and set(task.labeled) == set(names[:6])
    monkeypatch.chdir(tmp_path)
    data = DataArguments("photos", label_column="label")
    found = as_trained(get_task("classification"), str(tmp_path / "run"), data)
    assert found.label_column == "label" and found.value_range == [0, 4095]
    other = as_trained(get_task("classification"), str(tmp_path / "run"), DataArguments(str(classes / "photos")))
    assert other.label_column is None and other.value_range == [0, 4095]


def test_masks_are_asked_for_where_the_segmenter_is_uncertain(masks, tmp_path, capsys):
    argv = ["select", "--task", "segmentation", "--model", str(masks / "run"), "--dataset", str(masks / "data")]
    argv += ["--classes", str(masks / "classes.txt"), "--budget", "3", "--device", "cpu"]
    whys = {"entropy": "its pixels are uncertain by", "uncertain-pixels": "of its pixels are uncertain"}
    for strategy, why in whys.items():
        out = tmp_path / strategy
        more = [] if strategy == "entropy" else ["--strategy", strategy]  # the first is the default
        assert main([*argv, *more, "--output", str(out), "--strategy-args", "share=0"]) == 0
        task = Asked.load(out)
        assert task.strategy == strategy and task.class_names == ["ground", "disc"]
        assert not chosen(out) & {f"{i:02d}.png" for i in range(4)}  # those that have a mask
        said = json.loads((out / "suggestions.json").read_text())
        assert all(why in one["why"] for one in said.values())
    kind = get_task("segmentation")
    model = kind.load(masks / "run", device="cpu")
    source = kind.open_to_select(DataArguments(str(masks / "data")), str(masks / "classes.txt"))
    cache = kind.look(model, DataArguments(str(masks / "data")), source, np.arange(4, 12))
    unsure = kind.doubt(model, cache, torch.arange(8), "uncertain-pixels").unsure
    with torch.no_grad():
        from hf_lowlabel.evaluation.segmentation import as_seen

        image = np.asarray(source.rgb(6))
        top = model(as_seen(image, mean=model.config.image_mean, std=model.config.image_std)).logits.softmax(1)
        lead = top.topk(2, 1).values
    assert unsure[2] == pytest.approx(float((lead[:, 0] - lead[:, 1] < 0.5).float().mean()), abs=1e-6)
    assert chosen(tmp_path / "uncertain-pixels") == {source.ids[4 + i] for i in np.argsort(-unsure, kind="stable")[:3]}
    (tmp_path / "x.csv").touch()
    assert main([*argv, "--labels", str(tmp_path / "x.csv"), "--output", str(tmp_path / "no")]) == 2
    assert "Masks are read beside the images" in capsys.readouterr().err

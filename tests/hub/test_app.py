"""The demo page and the Space folder: what is in it, what it answers, and that it needs no package of ours."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
import torch
import yaml
from hub_runs import without_pictures
from PIL import Image
from safetensors.numpy import load_file

from hf_lowlabel.errors import UserError
from hf_lowlabel.hub.app import check_run, export_space
from hf_lowlabel.models.travelling import NETWORKS
from tests import strangers

WITHOUT_PACKAGE = """
import json, sys
from pathlib import Path
sys.modules["hf_lowlabel"] = None
sys.path.insert(0, sys.argv[1])
import app
from PIL import Image
page, launch = app.build(Path(sys.argv[1]))
model = app.Classifier(Path(sys.argv[1]))
print("RESULT" + json.dumps([model(Image.open(path)) for path in sys.argv[2:]] + [model(None)]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from hf_lowlabel import finetune

    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        return finetune(
            dataset="digits",
            model="cnn6_16",
            from_scratch=True,
            image_size=16,
            stored_size=16,
            color=False,
            max_steps=2,
            logging_steps=1,
            eval_steps=9,
            batch_size=10,
            num_labels=20,
            unlabeled_ratio=1,
            output_dir=str(tmp_path_factory.mktemp("runs") / "digits"),
        ).folder


@pytest.fixture(scope="module")
def space(run, tmp_path_factory):
    return export_space(run, tmp_path_factory.mktemp("space") / "digits")


def test_the_folder_is_a_space(run, space):
    there = {p.name for p in space.iterdir()}
    assert there == {
        "README.md",
        "app.py",
        "requirements.txt",
        "space.json",
        "model",
        "labeled",
        "examples",
        "lowlabel_architectures",
    }
    brought = (space / "lowlabel_architectures" / "__init__.py").read_text()
    assert all(f"{name.removesuffix('.py')}" in brought.split("#")[0] for name in NETWORKS)  # each registers its own
    assert {p.name for p in (space / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    head = yaml.safe_load((space / "README.md").read_text().split("---")[1])
    assert head["sdk"] == "gradio" and head["app_file"] == "app.py" and head["title"] == "digits"
    pins = dict(line.split("==") for line in (space / "requirements.txt").read_text().split())
    assert set(pins) == {"torch", "transformers", "timm", "safetensors", "numpy", "pillow"}
    index = json.loads((space / "labeled" / "index.json").read_text())
    split = json.loads((run / "split.json").read_text())
    assert sorted(row["label"] for row in index) == sorted(split["labeled"].values())
    features = load_file(space / "labeled" / "features.safetensors")["features"]
    assert len(features) == 20 and np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert len(list((space / "examples").iterdir())) == 8 and Image.open(space / "examples" / "0.png").size == (8, 8)
    assert str(run.parent) not in (space / "README.md").read_text() + (space / "space.json").read_text()


def test_its_page_answers_without_the_package_as_the_package_does(run, space, tmp_path):
    pytest.importorskip("gradio")
    from hf_lowlabel import load_source, predict

    source, split = load_source("digits"), json.loads((run / "split.json").read_text())
    id, label = next(iter(split["labeled"].items()))
    source.image(source.ids.index(id)).save(tmp_path / "labeled.png")
    source.image(source.ids.index(split["test"][0])).save(tmp_path / "test.png")
    files = [str(tmp_path / "labeled.png"), str(tmp_path / "test.png")]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    done = strangers.ran(WITHOUT_PACKAGE, str(space), *files, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second, nothing = json.loads(done.stdout.split("RESULT")[1])
    rows, _ = predict(files, str(run), output=None)
    for (shares, nearest), row in zip((first, second), rows, strict=True):
        assert max(shares, key=shares.get) == row["class"] and max(shares.values()) == pytest.approx(
            row["confidence"], abs=1e-5
        )
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5) and len(nearest) == 6
    assert first[1][0][1] == f"{label} (1.00)" and nothing == [None, []]


def test_without_images(run, tmp_path):
    space = export_space(run, tmp_path / "space", images=False)
    assert not (space / "labeled").exists() and not (space / "examples").exists()


def test_data_that_moved_leaves_a_page_without_pictures(run, tmp_path, caplog):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    (copy / "training.yaml").write_text(
        (copy / "training.yaml").read_text().replace("dataset: digits", "dataset: /nowhere/digits")
    )
    space = export_space(copy, tmp_path / "space")
    assert not (space / "labeled").exists() and (space / "app.py").is_file()


@pytest.mark.parametrize("broken, kept", [("examples", "labeled"), ("labeled", "examples")])
def test_pictures_of_one_kind_that_fail_leave_the_others(run, tmp_path, monkeypatch, caplog, broken, kept):
    from hf_lowlabel.hub import app

    def fails(run, record, output):
        (output / broken).mkdir()
        raise UserError("a photo is damaged")

    monkeypatch.setattr(app, f"_add_{broken}", fails)
    app.add_images(run, check_run(run), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [kept] and any((tmp_path / kept).iterdir())
    assert f"no {broken.removesuffix('s')} images on the page: a photo is damaged" in caplog.text


@pytest.mark.parametrize("card", [b"---\ntags: [a\n---\n", b"caf\xe9"])
def test_a_card_that_cannot_be_read_is_named(run, tmp_path, card):
    for path in run.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "README.md").write_bytes(card)
    with pytest.raises(UserError, match=f"{tmp_path / 'README.md'} (cannot be read|is not UTF-8)"):
        export_space(tmp_path, tmp_path / "space")
    assert not (tmp_path / "space").exists()


def test_what_is_no_model_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="no run.json"):
        check_run(tmp_path)
    with pytest.raises(UserError, match="is there already"):
        export_space(run, run)
    facts = json.loads((run / "run.json").read_text())
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "run.json").write_text(json.dumps({**facts, "kind": "backbone"}))
    with pytest.raises(UserError, match="is a backbone"):
        export_space(tmp_path, tmp_path / "space")


@pytest.mark.parametrize(
    "head, said",
    [
        ("license: mit", {"license": "mit"}),
        ("license: [mit, Apache-2.0]", {"license": ["mit", "apache-2.0"]}),
        (
            "license: other\nlicense_name: Clinic Licence\nlicense_link: LICENSE",
            {"license": "other", "license_name": "clinic-licence", "license_link": "LICENSE"},
        ),
        ("tags: [a]", {}),
    ],
)
def test_a_space_states_the_licence_of_the_card(head, said):
    import yaml

    from hf_lowlabel.hub.app import space_card
    from hf_lowlabel.records import RunRecord

    text = space_card(RunRecord("classification"), "pets", f"---\n{head}\n---\n# pets\n")
    values = yaml.safe_load(text.split("---")[1])
    assert {name: value for name, value in values.items() if name.startswith("license")} == said
    given = space_card(RunRecord("classification", license="My Own: Words"), "pets")
    assert yaml.safe_load(given.split("---")[1])["license_name"] == "my-own-words"


@pytest.fixture
def page(monkeypatch):
    """The module of the page without gradio, which only shows what comes out."""
    import importlib.util
    import types
    from pathlib import Path

    import hf_lowlabel.hub

    gradio = types.ModuleType("gradio")
    gradio.Blocks, gradio.Error = object, ValueError
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    file = Path(hf_lowlabel.hub.__file__).parent / "space_app.py"
    spec = importlib.util.spec_from_file_location("page", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("side", [None, 32, 96])
def test_a_segmenter(tmp_path, page, side):
    """Its masks are those of `predict`, whatever the size at which the network sees an image."""
    from hf_lowlabel import predict
    from hf_lowlabel.models.segmentation import create_segmenter
    from hf_lowlabel.records import RunRecord

    names, run = ["background", "cat", "dog"], tmp_path / "run"
    torch.manual_seed(0)
    how = dict(architecture="unet", pretrained=False, image_size=side)
    model = create_segmenter("test_resnet", 3, class_names=names, **how).eval()
    model.bfloat16().save_pretrained(run)  # no processor gives pixels of that
    model.float()
    RunRecord("segmentation", class_names=names).to_json(run / "run.json")
    (run / "README.md").write_text("---\nlicense: mit\n---\n")
    space = export_space(run, tmp_path / "space", images=False)
    assert "\nlicense: mit\n" in (space / "README.md").read_text()
    assert {"segmenter.py", "configuration_segmenter.py"} <= {p.name for p in (space / "model").iterdir()}
    said = json.loads((space / "space.json").read_text())
    page = page.Segmenter(space, names, said["colors"])
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))
    image, mask = page.segment(picture)
    (row,), _ = predict([picture], str(run), output=tmp_path / "answers", device="cpu")
    wanted = np.asarray(Image.open(tmp_path / "answers" / row["mask"]))
    assert np.array_equal(mask, wanted) and mask.shape == (40, 50) and len(np.unique(mask)) > 1
    shown, legend = page.draw((image, mask), 0.0)
    assert np.array_equal(shown, image)
    shown, legend = page.draw((image, mask), 1.0)
    colors = np.array(said["colors"], np.uint8)
    assert np.array_equal(shown, np.where((mask > 0)[..., None], colors[mask], image))
    for k in np.unique(mask):
        assert f"{names[k]} {100 * (mask == k).mean():.1f} %" in legend
    assert page.draw(None, 0.5) == (None, "")


def test_the_page_sees_deep_images_as_training_did(tmp_path, page):
    from hf_lowlabel.data.pixels.images import BadImage, to_rgb

    for beyond in ([[-1, 5]], [[7, 70_000]]):
        Image.fromarray(np.int32(beyond * 2)).save(tmp_path / "beyond.tif")
        with Image.open(tmp_path / "beyond.tif") as image, pytest.raises(ValueError) as refused:
            page.upright(image)
        with Image.open(tmp_path / "beyond.tif") as image, pytest.raises(BadImage, match=f"^{refused.value}$"):
            to_rgb(image)
    values = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    exif = Image.Exif()
    exif[274] = 6
    for name, pixels in (("deep.png", values), ("deep.tif", values), ("float.tif", values.astype(np.float32))):
        Image.fromarray(pixels).save(tmp_path / name, **({"exif": exif} if name == "deep.png" else {}))
        for given in ((0, 4095), (100, 60000), None):
            if given is None and name == "float.tif":
                with (
                    Image.open(tmp_path / name) as image,
                    pytest.raises(ValueError, match="floating-point.*--value-range"),
                ):
                    page.upright(image, given)
                continue
            with Image.open(tmp_path / name) as image, Image.open(tmp_path / name) as again:
                assert (np.asarray(page.upright(image, given)) == np.asarray(to_rgb(again, given))).all()


@pytest.mark.parametrize(
    "kind, side, size, stored",
    [
        ("segmentation", None, (700, 500), (700, 500)),  # seen as it is
        ("segmentation", 320, (700, 350), (320, 160)),
        ("segmentation", 96, (700, 350), (256, 128)),  # no less than what is only looked at
        ("classification", 288, (600, 400), (455, 303)),  # its short side, of which the middle is seen
        ("multilabel", 288, (300, 200), (300, 200)),
        ("classification", 64, (600, 400), (256, 171)),
    ],
)
def test_an_example_is_stored_as_large_as_the_model_sees_it(kind, side, size, stored, tmp_path, monkeypatch):
    from types import SimpleNamespace

    from hf_lowlabel.hub import app
    from hf_lowlabel.models import create_classifier
    from hf_lowlabel.models.segmentation import create_segmenter
    from hf_lowlabel.records import RunRecord

    make = create_segmenter if kind == "segmentation" else create_classifier
    make("test_resnet", 3, pretrained=False, class_names=["a", "b", "c"], image_size=side).save_pretrained(tmp_path)
    dataset = SimpleNamespace(rgb=lambda i: Image.new("RGB", size))
    images = SimpleNamespace(dataset=dataset, chosen=np.arange(3))
    monkeypatch.setattr("hf_lowlabel.hub.report_data.labeled_images", lambda run, record: images)
    app._add_examples(tmp_path, RunRecord(kind, class_names=["a", "b", "c"]), tmp_path)
    assert {Image.open(p).size for p in (tmp_path / "examples").iterdir()} == {stored}

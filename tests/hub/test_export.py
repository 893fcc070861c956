"""A model as ONNX or for OpenVINO: its lines answer as `predict` does, and nothing is left of what went wrong."""

from __future__ import annotations

import ast
import errno
import json
import re
import shutil
import sys
from contextlib import nullcontext, suppress

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel import predict
from hf_lowlabel.cli import main
from hf_lowlabel.data.pixels.images import load_rgb, open_image
from hf_lowlabel.errors import UserError
from hf_lowlabel.files import write_json
from hf_lowlabel.hub import export as module
from hf_lowlabel.hub.export import export
from hf_lowlabel.models import create_classifier
from hf_lowlabel.models.segmentation import create_segmenter
from hf_lowlabel.tasks import get_task
from hf_lowlabel.tasks.deployment import deployment

NAMES = ["ant", "bee", "cat"]


@pytest.fixture
def photos(tmp_path):
    """Three pictures, the second turned by its EXIF, the third of 12 bits in 16."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for name, size in (("a.jpg", (61, 83)), ("b.jpg", (97, 53))):
        coarse = Image.fromarray(rng.integers(0, 255, (5, 7, 3), np.uint8))
        image, exif = coarse.resize(size, Image.Resampling.BICUBIC), Image.Exif()
        exif[0x0112] = 6 if name == "b.jpg" else 1
        image.save(folder / name, exif=exif)
    deep_photo(folder / "c.png")
    return folder


def deep_photo(file):
    values = np.random.default_rng(1).integers(0, 4096, (5, 7)).astype(np.uint16).repeat(12, 0).repeat(12, 1)
    Image.fromarray(values).save(file)


def run_readme(folder, photo, monkeypatch) -> dict:
    """What the lines of the README leave, on this photo."""
    (folder / "photo.jpg").write_bytes(photo.read_bytes())
    monkeypatch.chdir(folder)
    (snippet,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    assert len([line for line in snippet.splitlines() if line.strip()]) < 23 and "hf_lowlabel" not in snippet
    scope: dict = {}
    exec(snippet, scope)
    return scope


def classifier(folder, crop_mode="center", **config):
    torch.manual_seed(0)
    model = create_classifier("test_resnet", 3, pretrained=False, class_names=NAMES, image_size=48).eval()
    model.config.pretrained_cfg.update(crop_pct=0.9, crop_mode=crop_mode)
    model.set_classifier(torch.randn(3, model.num_features), torch.tensor([3.0, -9.0, 3.0]))
    for name, value in config.items():
        setattr(model.config, name, value)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The graph of `classifier`: written once, it takes most of the time."""
    run = classifier(tmp_path_factory.mktemp("onnx") / "run")
    module.export(run)
    return run / "onnx" / "model.onnx"


@pytest.mark.parametrize("mode, given", [("center", {}), ("squash", {}), ("center", {"value_range": [100.0, 4095.0]})])
def test_a_classifier(mode, given, tmp_path, graph, photos, monkeypatch, capsys):
    monkeypatch.setattr(module, "write_graph", lambda model, plan, path: shutil.copyfile(graph, path))
    run = classifier(tmp_path / "run", mode, **given)
    assert main(["export", str(run), "--images", str(photos)]) == 0
    said = json.loads((run / "onnx" / "preprocessing.json").read_text())
    assert ("both sides" in said["steps"][0]["resize"]) is (mode == "squash")
    assert said["classes"] == NAMES and "on 3 images: logits differ by" in capsys.readouterr().out
    for row in predict(photos, run).rows:
        scope = run_readme(run / "onnx", photos / row["file"].rpartition("/")[2], monkeypatch)
        name, p = capsys.readouterr().out.split()
        assert name == row["class"] and float(p) == pytest.approx(row["confidence"], abs=1e-4)
    many = {"pixel_values": np.repeat(scope["x"], 5, 0)}
    assert scope["session"].run(None, many)[0].shape == (5, 3)  # a free number of images
    with pytest.raises(UserError, match="is there already"):
        export(run)


@pytest.mark.parametrize("value_range", [None, [100.0, 4095.0]])
@pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation"])
def test_the_lines_see_what_the_network_sees(task, value_range, tmp_path, photos, monkeypatch):
    """Whatever the bits of a picture; up to the input, which needs no graph."""
    monkeypatch.chdir(tmp_path)
    how = dict(pretrained=False, class_names=NAMES, image_size=72)
    model = (create_segmenter if task == "segmentation" else create_classifier)("test_resnet", 3, **how).eval()
    model.config.value_range = value_range
    plan = deployment(get_task(task), model)
    write_json(tmp_path / "preprocessing.json", plan.facts)
    for photo in photos.iterdir():
        shutil.copyfile(photo, "photo.jpg")
        scope: dict = {}
        exec(plan.snippet("onnxruntime").partition("session =")[0], scope)
        with open_image(photo) as image:
            seen = plan.prepare(load_rgb(image, value_range)).numpy()
        assert seen.shape == scope["x"].shape and np.abs(seen - scope["x"]).max() < 0.02  # a level of 255


@pytest.mark.parametrize("size", [(130, 71), (60, 41), (16, 20)])
@torch.no_grad()
def test_the_lines_scale_probabilities_as_predict_does(size, tmp_path, monkeypatch):
    """Where a photo is larger than what the network sees, and smaller; without a graph."""
    torch.manual_seed(0)
    how = dict(architecture="unet", pretrained=False, class_names=NAMES, image_size=32)
    model = create_segmenter("test_resnet", 3, **how).eval()
    model.save_pretrained(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    coarse = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save("photo.png")
    (row,) = predict("photo.png", tmp_path / "run", output=tmp_path / "masks", device="cpu").rows
    plan, picture = deployment(get_task("segmentation"), model), Image.open("photo.png")
    x = plan.prepare(picture)
    height, width = (max(int(side * 32 / max(size)), 1) for side in size[::-1])
    exec(plan.after, dict(np=np, Image=Image, image=picture, h=height, w=width, logits=model(x).logits.numpy()))
    own, theirs = (np.asarray(Image.open(p)) for p in (tmp_path / "masks" / row["mask"], "mask.png"))
    assert own.shape == theirs.shape and len(np.unique(own)) > 1
    assert (own == theirs).mean() > 0.98 and "scaled to the size of the image" in plan.facts["answer"]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_segmenter_at_any_size(format, tmp_path, photos, monkeypatch):
    pytest.importorskip(module.FORMATS[format][0])
    torch.manual_seed(0)
    model = create_segmenter(
        "test_resnet", 3, architecture="deeplabv2", pretrained=False, class_names=NAMES, image_size=72
    ).eval()
    model.save_pretrained(tmp_path / "run")
    done = export(tmp_path / "run", tmp_path / "out", format=format, images=photos)
    assert done.difference < 1e-4 and done.same > 0.999
    rows = predict(photos, tmp_path / "run", output=tmp_path / "masks").rows
    for row in rows:
        run_readme(tmp_path / "out", photos / row["file"].rpartition("/")[2], monkeypatch)
        own, theirs = (np.asarray(Image.open(p)) for p in (tmp_path / "masks" / row["mask"], "mask.png"))
        assert own.shape == theirs.shape and (own == theirs).mean() > 0.95


def test_a_classifier_of_several_classes(tmp_path, graph, photos, monkeypatch, capsys):
    """Sigmoid and threshold; without --images noise is compared."""
    monkeypatch.setattr(module, "write_graph", lambda model, plan, path: shutil.copyfile(graph, path))
    run = classifier(tmp_path / "run", problem_type="multi_label_classification")
    assert "random pixels" in str(export(run))
    run_readme(run / "onnx", photos / "a.jpg", monkeypatch)
    row, found = predict(photos / "a.jpg", run).rows[0], ast.literal_eval(capsys.readouterr().out)
    assert found.keys() == set(row["classes"].split(";")) and 0 < len(found) < 3
    assert all(p == pytest.approx(row[f"confidence_{name}"], abs=1e-4) for name, p in found.items())


def test_what_answers_otherwise_is_not_kept(tmp_path, monkeypatch):
    run = classifier(tmp_path / "run")

    def other(model, plan, path):
        import onnx
        from onnx import TensorProto, helper

        node = helper.make_node("ReduceSum", ["pixel_values", "axes"], ["logits"], keepdims=0)
        given = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["b", 3, "h", "w"])
        gives = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 3])
        axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
        graph = helper.make_graph([node], "wrong", [given], [gives], [axes])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(made, path)

    monkeypatch.setattr(module, "write_graph", other)
    before = sorted(p.name for p in run.iterdir())
    with pytest.raises(UserError, match="does not answer as the model does: logits differ by"):
        export(run)
    assert sorted(p.name for p in run.iterdir()) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_in_memory_stays_as_it_is(tmp_path, graph, photos, monkeypatch, dtype):
    seen = []

    def write_graph(model, plan, path):
        seen.append(model.dtype)
        shutil.copyfile(graph, path)

    monkeypatch.setattr(module, "write_graph", write_graph)
    model = get_task("classification").load(classifier(tmp_path / "run"), device="cpu").to(dtype).train()
    with nullcontext() if dtype == torch.float32 else suppress(UserError):  # the graph is of weights before rounding
        export(model, tmp_path / "out", images=photos)
    assert model.training and model.dtype == dtype and seen == [torch.float32]


def test_neighbours_answer_for_any_number_of_images(tmp_path):
    """Also where the side of an image is that of one cell of the map."""
    args = dict(architecture="knn", architecture_args=dict(stored=7, k=3))
    model = create_segmenter("cnn6_16", 3, **args, pretrained=False, image_size=8).eval()
    assert export(model, tmp_path / "out").difference < 1e-3  # one image, then three


@pytest.mark.parametrize("what", ["damaged", "fixed"])
def test_what_onnxruntime_says_is_one_sentence(what, tmp_path, monkeypatch):
    """Of a graph it cannot read, and of one that takes no other number of images."""
    run = classifier(tmp_path / "run")

    def other(model, plan, path):
        import onnx
        from onnx import TensorProto, helper

        if what == "damaged":
            path.write_bytes(b"no graph")
            return
        node = helper.make_node("Identity", ["pixel_values"], ["logits"])
        given, gives = (
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3, 4, 4]) for n in ("pixel_values", "logits")
        )
        graph = helper.make_graph([node], "fixed", [given], [gives])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)

    monkeypatch.setattr(module, "write_graph", other)
    with pytest.raises(UserError, match="onnxruntime cannot run the file of this network.*Nothing was kept"):
        export(run)
    assert not (run / "onnx").exists()


def test_a_full_disk_is_no_fault_of_the_network(tmp_path, graph, photos, monkeypatch, capsys):
    """Whoever meets it first, and whatever becomes of its error on the way."""
    from onnxruntime import quantization

    run = classifier(tmp_path / "run")
    before = sorted(p.name for p in run.iterdir())

    def full(*given, **more):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("could not be converted") from error

    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", full)
        assert main(["export", str(run)]) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said and "Free some space" in said and "another architecture" not in said
    monkeypatch.setattr(module, "write_graph", lambda model, plan, path: shutil.copyfile(graph, path))
    usage = shutil.disk_usage(tmp_path)

    def truncated(*given, **more):  # onnxruntime writes what fits, and does not know it again
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
        raise RuntimeError("Wire format was corrupt")

    monkeypatch.setattr(quantization, "quantize_static", truncated)
    assert main(["export", str(run), "--int8", "--images", str(photos)]) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said and "Leave out --int8" not in said
    assert sorted(p.name for p in run.iterdir()) == before


@pytest.mark.parametrize(
    "format, package", [("onnx", "onnx"), ("onnx", "onnxscript"), ("onnx", "onnxruntime"), ("openvino", "openvino")]
)
def test_a_missing_package_is_one_sentence(format, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", str(tmp_path), "--format", format]) == 2
    text, extra = capsys.readouterr().err, "openvino" if format == "openvino" else "export"
    assert package in text and f"pip install 'hf_lowlabel[{extra}]'" in text and text.count("\n") == 1


@pytest.mark.parametrize(
    "given, said",
    [
        (["--format", "torchscript"], "deprecated by torch"),
        (["--format", "pt2"], "may not open in another version"),
        (["--format", "open-vino"], "did you mean 'openvino'"),
        (["--format", "openvino", "--int8"], "Leave it out, or take --format onnx"),
    ],
)
def test_a_format_that_is_not_written(given, said, tmp_path, capsys):
    assert main(["export", str(tmp_path), *given]) == 2
    assert said in capsys.readouterr().err and not any(tmp_path.iterdir())


@pytest.mark.parametrize("several", [False, True])
def test_openvino(several, tmp_path, graph, photos, monkeypatch, capsys):
    """Another program reads the same graph, and answers as `predict` does by the lines beside it."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(module, "write_graph", lambda model, plan, path: shutil.copyfile(graph, path))
    run = classifier(tmp_path / "run", **(dict(problem_type="multi_label_classification") if several else {}))
    assert main(["export", str(run), "--format", "openvino", "--images", str(photos), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["package"] == "openvino" and done["difference"] < 1e-3 and done["same"] == 1
    assert sorted(p.name for p in (run / "openvino").iterdir()) == [
        *("README.md", "model.bin", "model.xml", "preprocessing.json")
    ]
    for row in predict(photos, run).rows:
        scope = run_readme(run / "openvino", photos / row["file"].rpartition("/")[2], monkeypatch)
        if several:
            assert ast.literal_eval(capsys.readouterr().out).keys() == set(filter(None, row["classes"].split(";")))
            continue
        name, p = capsys.readouterr().out.split()
        assert name == row["class"] and float(p) == pytest.approx(row["confidence"], abs=1e-4)
    assert scope["session"]({"pixel_values": np.repeat(scope["x"], 5, 0)})["logits"].shape == (5, 3)


def test_bad_input(tmp_path, capsys):
    assert main(["export", str(tmp_path / "none")]) == 2
    assert "There is no model" in capsys.readouterr().err
    model = create_classifier("test_resnet", 3, pretrained=False, class_names=NAMES, image_size=32)
    with pytest.raises(UserError, match="Give --output"):
        export(model)


def test_int8_says_what_it_costs(tmp_path, graph, photos, monkeypatch, capsys, caplog):
    """Both files are scored as `evaluate` scores the model; without a run's test images it says that nobody knows."""
    from hf_lowlabel import evaluate
    from hf_lowlabel.arguments import Config
    from hf_lowlabel.data.splits.splits import Split
    from hf_lowlabel.hub import export_int8

    monkeypatch.setattr(module, "write_graph", lambda model, plan, path: shutil.copyfile(graph, path))
    run = classifier(tmp_path / "run")
    assert main(["export", str(run), "--images", str(photos), "--int8", "--output", str(tmp_path / "a")]) == 0
    assert "no test images" in capsys.readouterr().out and (tmp_path / "a" / export_int8.NAME).is_file()
    rng, data = np.random.default_rng(0), tmp_path / "data"
    for k, name in enumerate(NAMES * 4):
        (data / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), np.uint8)).save(data / name / f"{k}.png")
    ids = [f"{name}/{k}.png" for k, name in enumerate(NAMES * 4)]
    Split("data", NAMES, {ids[0]: NAMES[0]}, test=ids[3:]).save(run / "split.json")
    for name in ("training.yaml", "run.json"):
        (run / name).touch()
    config = Config("finetune")
    config.data.dataset = str(data)
    monkeypatch.setattr(export_int8, "config_of", lambda folder: config)
    (run / "training.yaml").unlink()  # evaluate reads it too
    own = evaluate(run, str(data), device="cpu")["accuracy"]
    (run / "training.yaml").touch()
    done = export(run, tmp_path / "b", int8=True).eight
    assert done.before == pytest.approx(own) and 0 <= done.after <= 1
    assert (done.images, done.calibrated) == (9, 3) and done.sizes[1] < done.sizes[0]
    assert "points) on 9 test images" in str(done) and str(done) in (tmp_path / "b" / "README.md").read_text()
    for gone in (str(tmp_path / "moved"), "<memory>"):  # the run is all that a colleague got
        config.data.dataset = gone
        assert (
            main(["export", str(run), "--images", str(photos), "--int8", "--output", str(tmp_path / "c" / gone[-5:])])
            == 0
        )
        said = capsys.readouterr()
        assert "no test images at hand" in said.out and f"the test images of {run} cannot be opened" in caplog.text
        caplog.clear()
        with pytest.raises(UserError):  # without images there is nothing that gives the ranges
            export(run, tmp_path / "d", int8=True)


@pytest.mark.parametrize("kept", [12, 200])
def test_the_ranges_of_int8_are_of_images_that_were_not_held_out(kept, tmp_path, monkeypatch):
    """By training images of the run alone, spread over all of them; the file is scored on the others."""
    from types import SimpleNamespace

    from hf_lowlabel.data.splits.splits import Split
    from hf_lowlabel.hub import export_int8

    ids, seen = [f"{k:03d}.png" for k in range(2 * kept)], []
    Split("photos", NAMES, {ids[0]: "ant"}, validation=ids[1:kept:2], test=ids[kept + 1 :: 2]).save(
        tmp_path / "split.json"
    )
    source = SimpleNamespace(ids=ids, image=lambda i: seen.append(ids[i]) or Image.new("RGB", (4, 4)))
    monkeypatch.setattr(export_int8, "config_of", lambda run: SimpleNamespace(data=None))
    task = SimpleNamespace(open_images=lambda data: source)
    plan = SimpleNamespace(prepare=lambda picture: torch.zeros(1, 3, 4, 4), value_range=None)
    assert len(list(export_int8.calibration(task, plan, tmp_path, None))) == min(kept, 64)
    assert all(int(id[:3]) % 2 == 0 for id in seen) and {ids[0], ids[-2]} <= set(seen)
    (tmp_path / "split.json").unlink()  # of a run that held nothing out
    assert len(list(export_int8.calibration(task, plan, tmp_path, None))) == min(2 * kept, 64)


@pytest.mark.parametrize(
    "error", [ConnectionError("the Hub is away"), OSError(errno.EIO, "Input/output error", "a.png"), MemoryError()]
)
def test_images_that_fail_are_not_the_network(error, tmp_path, graph, photos, monkeypatch):
    """What comes of the data once the ranges are taken is told as it is, and nothing is left."""
    from hf_lowlabel.hub import export_int8

    opened = export_int8.open_image

    def failing(file):
        if file.name == "b.jpg":
            raise error
        return opened(file)

    monkeypatch.setattr(module, "write_graph", lambda model, plan, path: shutil.copyfile(graph, path))
    monkeypatch.setattr(export_int8, "open_image", failing)
    with pytest.raises(type(error)) as raised:
        export(classifier(tmp_path / "run"), tmp_path / "out", images=str(photos), int8=True)
    assert raised.value is error and not (tmp_path / "out").exists()

"""Images that cannot be read, where the images of `auto` stream: they are left out of what is said and asked for."""

import json
import shutil
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from hf_lowlabel import auto, finetune
from hf_lowlabel.commands import DONE
from hf_lowlabel.data.caches import image_cache
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.data.pixels.images import BadImage
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling import to_label
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.to_label import export
from hf_lowlabel.ladder import advice, on_features
from hf_lowlabel.ladder.on_training import next_to_label
from hf_lowlabel.models import create_backbone
from hf_lowlabel.selection.by_model import look
from hf_lowlabel.tasks.classification import Classification
from hf_lowlabel.tasks.uncertainty import Doubt
from hf_lowlabel.training.priors import load_priors
from tests.transformers_repos import save_two_towers

from .test_auto import photos

BAD = "white-07.png"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A saved encoder, a CLIP, and 36 photos of which one that has no label cannot be read."""
    base = tmp_path_factory.mktemp("bad")
    torch.manual_seed(0)
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(base / "net")
    create_backbone("test_resnet", pretrained=False, image_size=24).save_pretrained(base / "other")
    save_two_towers("CLIP", base / "clip", train=True)
    data = photos(base / "photos", each=12, sort=False)
    (data / BAD).write_bytes((data / BAD).read_bytes()[:60])
    rows = [f"{kind}-{i:02d}.png,{kind}" for kind in ("blue", "red", "white") for i in range(4)]
    (base / "labels.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    return base


@pytest.fixture
def streaming(monkeypatch):
    """Images stream, and a cache looks at two of them at first."""
    monkeypatch.setattr(image_cache, "streams", lambda *_: True)
    monkeypatch.setattr(image_cache, "spread", lambda count: np.array([0, count - 1]))
    monkeypatch.setattr(image_cache, "cores", lambda: 0)


def search(base, folder, **more):
    given = dict(labels=base / "labels.csv", train=False, max_bad=0.1, output_dir=folder)
    return auto(base / "photos", **{"model": base / "net", **given, **more})


def test_an_unreadable_image_is_neither_asked_for_nor_a_copy(base, tmp_path, streaming, monkeypatch):
    best = search(base, tmp_path / "run", to_label=100)
    said = json.loads((tmp_path / "run" / "advice.json").read_text())
    assert BAD not in json.dumps(said) and not said["copies"]
    asked = json.loads((best.to_label / "selection.json").read_text())["files"]
    assert len(asked) == 36 - 12 - 1 and BAD not in asked.values()
    (kept,) = (tmp_path / "run" / "features").glob("*.safetensors")
    assert len(load_file(kept)["indices"]) == len(load_file(kept)["features"]) == 35
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["images"] == 35
    with monkeypatch.context() as patch:  # they are kept for all images that can be read
        patch.setattr(Classification, "features", lambda *_: pytest.fail("features are computed once more"))
        search(base, tmp_path / "again", features=tmp_path / "run" / "features", to_label=0)
    again = json.loads((tmp_path / "again" / "advice.json").read_text())
    assert again["accuracy"] == said["accuracy"] and again["strangers"] == said["strangers"]


def test_what_names_say_is_of_the_image_it_stands_beside(base, tmp_path, streaming, monkeypatch):
    given = dict(text_model=str(base / "clip"), class_names=["blue", "red", "white"], to_label=0)
    search(base, tmp_path / "run", **given)
    monkeypatch.undo()
    search(base, tmp_path / "resident", **given)
    ids = sorted(f"{kind}-{i:02d}.png" for kind in ("blue", "red", "white") for i in range(12))
    ids.remove(BAD)
    a, b = (load_priors(tmp_path / run / "words.safetensors", ids, given["class_names"]) for run in ("run", "resident"))
    torch.testing.assert_close(a, b)


def test_names_alone(base, tmp_path, streaming):
    data = base / "photos"
    best = auto(
        data,
        base / "net",
        text_model=str(base / "clip"),
        class_names=["blue", "red", "white"],
        max_bad=0.1,
        to_label=100,
        output_dir=tmp_path / "run",
    )
    asked = json.loads((best.to_label / "selection.json").read_text())["files"]
    assert len(asked) > 3 and BAD not in asked.values()


@pytest.mark.parametrize("later", [True, False], ids=["the second streams", "the first streams"])
def test_two_encoders_see_the_same_images(base, tmp_path, monkeypatch, later):
    """Whichever of them streams: images have one place in all features."""
    built = []

    def streams(*_):
        built.append((len(built) > 0) == later)
        return built[-1]

    monkeypatch.setattr(image_cache, "streams", streams)
    monkeypatch.setattr(image_cache, "spread", lambda count: np.array([0, count - 1]))
    monkeypatch.setattr(image_cache, "cores", lambda: 0)
    best = search(base, tmp_path / "run", model=[base / "net", base / "other"], to_label=100)
    assert built == [not later, later] and len({one.encoder for one in best.ladder}) == 2
    asked = json.loads((best.to_label / "selection.json").read_text())["files"]
    assert len(asked) == 23 and BAD not in asked.values()


@pytest.mark.parametrize("file", ["red-02.png", "red-09.png"], ids=["with a label", "without"])
@pytest.mark.parametrize("streams", [True, False])
def test_an_image_that_goes_bad_between_two_encoders_is_named(base, tmp_path, monkeypatch, file, streams):
    """Rather than that all images after it are taken for the ones before them."""
    data, rebuilt = shutil.copytree(base / "photos", tmp_path / "photos"), on_features.rebuilt

    def spoiled(*args, **settings):
        (data / file).write_bytes((data / file).read_bytes()[:60])
        monkeypatch.setattr(image_cache, "streams", lambda *_: streams)
        monkeypatch.setattr(image_cache, "cores", lambda: 0)
        monkeypatch.setattr(image_cache, "spread", lambda count: np.array([0, count - 1]))
        return rebuilt(*args, **settings)

    monkeypatch.setattr(on_features, "rebuilt", spoiled)
    given = dict(labels=base / "labels.csv", train=False, max_bad=0.2, output_dir=tmp_path / "run")
    with pytest.raises(UserError, match=f"{file}' cannot be read any more. Mend the file"):
        auto(data, [base / "net", base / "other"], **given)


def test_an_image_of_several_classes_that_cannot_be_read(base, tmp_path, streaming):
    rows = [f"{kind}-{i:02d}.png,{kind};{'odd' if i % 2 else 'even'}" for kind in ("blue", "red") for i in range(6)]
    (tmp_path / "labels.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    best = search(base, tmp_path / "run", task="multilabel", labels=tmp_path / "labels.csv", to_label=100)
    said = json.loads((tmp_path / "run" / "advice.json").read_text())
    assert len(said["next"]) == 23 and BAD not in json.dumps(said) and not said["copies"]
    assert BAD not in json.loads((best.to_label / "selection.json").read_text())["files"].values()


class Streamed:
    """Five images, of which the one at 2 is shown in the place of the one at 1."""

    sizes, skipped, indices, ids = None, [], np.arange(5), [f"{i}.png" for i in range(5)]

    def __len__(self):
        return 5

    def shown(self, indices):
        return torch.where(indices == 1, 2, indices)

    def take(self, indices):
        noise = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        noise[3] = noise[0]
        return 255 * noise[self.shown(indices)]


@pytest.mark.parametrize("compared", [5, 3], ids=["all", "those asked"])
def test_an_image_is_no_copy_of_the_one_that_stands_in_for_it(monkeypatch, compared):
    monkeypatch.setattr(advice, "COMPARED", compared)
    assert [one.rows for one in advice.copies(Streamed(), np.array([1, 0]))] == [(0, 3)]


@pytest.mark.parametrize("labeled", [[0], [0, 2, 3, 4]], ids=["some are left", "none is left"])
def test_a_trained_model_asks_for_no_image_that_cannot_be_read(labeled):
    """As with masks, where nothing has looked at all images."""
    p = np.full((5, 2), 0.5)
    task = Mock(doubts=("margin",), doubt=lambda model, cache, some: Doubt(*(v[some.numpy()] for v in (p[:, 0], p, p))))
    task.name = "multilabel"
    split = SimpleNamespace(without_passed_over=lambda rows, ids: rows)
    ready = Mock(task=task, training=Streamed(), at=SimpleNamespace(labeled=np.array(labeled)), names=["a", "b"])
    ready.chosen.split = split
    found, x, asked = next_to_label(ready, Mock(), 5, None)
    assert sorted(one.rows[0] for one in found) == [i for i in (2, 3, 4) if i not in labeled] == asked.tolist()
    assert len(x) == len(asked)  # nothing is made up of the others


def test_a_finished_model_doubts_no_image_that_cannot_be_read():
    """When it is asked by hand."""
    rows = np.arange(10.0).reshape(5, 2)
    task = Mock(doubts=("margin",), doubt=lambda *_: Doubt(rows[:, 0], rows, rows), look=lambda *_: Streamed())
    found = look(task, "run", Mock(), Mock(), np.arange(5), "margin", None, None)
    assert found.found.indices.tolist() == [0, 2, 3, 4] and found.doubt.unsure.tolist() == [0, 4, 6, 8]
    assert len(found.found) == len(found.doubt.x) == len(found.doubt.p) == 4


@pytest.mark.parametrize("method", ["probe", "label-spreading"])
def test_nothing_is_said_of_an_image_that_cannot_be_read(base, tmp_path, streaming, method):
    """Nor by the same method by hand."""
    split, data = tmp_path / "split.json", base / "photos"
    import_labels(base / "labels.csv", source=load_source(data), new_classes=True, allow_missing=True)[0].save(split)
    finetune(data, base / "net", method=method, split=split, max_bad=0.1, output_dir=tmp_path / "run")
    table = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert len(table) == 35 and BAD not in set(table.id)
    assert (table[table.part == "labeled"].id.str.split("-").str[0] == table[table.part == "labeled"]["class"]).all()
    assert len(load_file(tmp_path / "run" / "priors.safetensors")["priors"]) == 35
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["images"] == 35


def test_a_folder_to_label_goes_without_what_cannot_be_read_any_more(base, tmp_path, caplog):
    """It may be damaged after it was chosen; the answers of the others stay with them."""
    source = load_source(base / "photos")
    asked = [source.ids.index(name) for name in ("blue-00.png", BAD, "red-01.png")]
    task = Asked(dataset=source.name, fingerprint=source.fingerprint, files={}, class_names=["blue", "red"])
    why = [dict(stands_for=n, neighbours=[]) for n in (1, 2, 3)]
    said = {source.ids[i]: (None, f"why {n}") for n, i in enumerate(asked)}
    done = export(tmp_path / "ask", source, np.array(asked), task, why, said)
    assert (
        list(done.files.values()) == ["blue-00.png", "red-01.png"] == list(Asked.load(tmp_path / "ask").files.values())
    )
    assert BAD in caplog.text and BAD not in (tmp_path / "ask" / "labels.csv").read_text()
    sheet = (tmp_path / "ask" / "index.html").read_text()
    assert "image of 3 images" in sheet and "image of 2 images" not in sheet and BAD not in sheet
    with pytest.raises(UserError, match="None of the chosen images can be read any more"):
        export(tmp_path / "none", source, np.array(asked[1:2]), task, why[1:2])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("of_words", [False, True])
def test_a_run_is_whole_where_no_image_to_label_can_be_read_any_more(base, tmp_path, monkeypatch, caplog, of_words):
    def damaged(source, i, *_):
        raise BadImage("truncated", source.ids[i])

    monkeypatch.setattr(to_label, "write_image", damaged)
    words = dict(text_model=str(base / "clip"), class_names=["blue", "red", "white"], labels=None)
    best = search(base, tmp_path / "run", to_label=3, **(words if of_words else {}))
    assert best.to_label is None and "can be read any more" in caplog.text
    assert not (tmp_path / "run" / "to_label").exists() and (tmp_path / "run" / DONE).is_file()
    assert len(json.loads((tmp_path / "run" / "advice.json").read_text())["next"]) == 3

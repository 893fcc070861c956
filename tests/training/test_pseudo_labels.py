"""What classifiers believe of the pool: means, votes, five crops and four rotations; labels stay labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_lowlabel import load_source, make_split
from hf_lowlabel.data.pixels.images import BadImage, square_of
from hf_lowlabel.errors import UserError
from hf_lowlabel.models import create_classifier
from hf_lowlabel.tasks.classification import Classification, eval_view
from hf_lowlabel.training.priors import load_priors
from hf_lowlabel.training.pseudo_labels import pseudo_labels, twenty


@pytest.fixture
def made(tmp_path, few_images):
    """(source, split, folders of two random classifiers of 6 px crops from 8 px images)."""
    source = load_source("digits")
    split = make_split(source, 20, class_balanced=True, test_fraction=0.2)
    for i in range(2):
        torch.manual_seed(i)
        model = create_classifier(
            "cnn6_16", 10, pretrained=False, class_names=split.class_names, image_size=6, crop_pct=0.75
        )
        with torch.no_grad():
            model.timm_model.fc.weight.mul_(30)
        model.save_pretrained(tmp_path / str(i))
    return source, split, [tmp_path / "0", tmp_path / "1"]


def by_hand(source, split, folder, crops: bool) -> np.ndarray:
    model = Classification().load(folder, device="cpu")
    view = eval_view(model)
    assert square_of(model.preprocessing)["size"] == 8
    x = torch.stack(
        [
            torch.from_numpy(np.array(source.image(i).convert("RGB"))).permute(2, 0, 1)
            for i in split.resolve(source).train
        ]
    )
    mean, std = view.mean, view.std
    places = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)] if crops else [(1, 1)]
    turns = range(4) if crops else (0,)
    with torch.no_grad():
        logits = [
            model((x[..., a : a + 6, b : b + 6].rot90(q, (2, 3)) / 255 - mean) / std).logits
            for a, b in places
            for q in turns
        ]
        return torch.stack(logits).mean(0).softmax(1).numpy()  # logits are averaged, as in the authors' code


@pytest.mark.parametrize("votes, crops", [(False, False), (True, False), (False, True)])
def test_the_file_holds_the_mean_over_models_and_crops(votes, crops, made, tmp_path):
    source, split, folders = made
    found = pseudo_labels(folders, source, split, tmp_path / "p.safetensors", votes=votes, crops=crops, device="cpu")
    beliefs = [by_hand(source, split, f, crops) for f in folders]
    expected = np.mean([np.eye(10)[p.argmax(1)] if votes else p for p in beliefs], axis=0)
    at = split.resolve(source)
    known = np.isin(at.train, at.labeled)
    assert known.sum() == 20
    np.testing.assert_allclose(found[~known], expected[~known], atol=1e-4)
    assert np.array_equal(found[known].argmax(1), at.labels) and np.all(found[known].max(1) == 1)
    ids = [source.ids[i] for i in at.train]
    np.testing.assert_allclose(load_priors(tmp_path / "p.safetensors", ids, split.class_names).numpy(), found)


def test_twenty_views_are_different(made):
    view = eval_view(Classification().load(made[2][0], device="cpu"))
    x = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    shown = {v(x, torch.zeros(1, 0, dtype=torch.float64)).numpy().tobytes() for v in twenty(view)}
    assert len(shown) == 20


def test_a_model_of_other_classes_is_refused(made, tmp_path):
    source, split, _ = made
    create_classifier("cnn6_16", 2, pretrained=False, class_names=["cat", "dog"], image_size=8).save_pretrained(
        tmp_path / "other"
    )
    with pytest.raises(UserError, match="The model in .*other has the classes cat, dog, and the split"):
        pseudo_labels([tmp_path / "other"], source, split, tmp_path / "p.safetensors", device="cpu")


def test_a_labeled_image_that_cannot_be_read_has_no_row(made, tmp_path, monkeypatch):
    source, split, folders = made
    at, read = split.resolve(source), source.reader
    lost = int(at.labeled[3])
    kept = [i for i in at.train.tolist() if i != lost]

    def reader(i):
        if i == lost:
            raise BadImage("damaged")
        return read(i)

    monkeypatch.setattr(source, "reader", reader)
    found = pseudo_labels(folders, source, split, tmp_path / "p.safetensors", device="cpu")
    known = np.isin(kept, at.labeled)
    assert len(found) == len(kept) and known.sum() == 19
    labels = dict(zip(at.labeled.tolist(), at.labels.tolist(), strict=True))
    assert found[known].argmax(1).tolist() == [labels[i] for i in kept if i in labels] and np.all(
        found[known].max(1) == 1
    )


def test_a_labeled_image_without_a_class_is_refused(made, tmp_path):
    """It was taken to be of the last one."""
    source, split, folders = made
    image = next(iter(split.labeled))
    source.labels = source.labels.copy()
    source.labels[source.ids.index(image)] = -1
    split = replace(split, labeled={**split.labeled, image: None})
    with pytest.raises(UserError, match=f"1 labeled images of the split, such as '{image}', have no label"):
        pseudo_labels(folders, source, split, tmp_path / "p.safetensors", device="cpu")
    assert not (tmp_path / "p.safetensors").exists()

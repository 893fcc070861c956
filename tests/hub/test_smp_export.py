"""A segmenter as smp's own checkpoint: the same logits, our card, no licence that nobody gave."""

from __future__ import annotations

import re

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from huggingface_hub import ModelCard
from PIL import Image

from hf_lowlabel import predict
from hf_lowlabel.cli import main
from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation.segmentation import as_seen
from hf_lowlabel.hub.card import write_card
from hf_lowlabel.hub.push import push
from hf_lowlabel.hub.smp_export import export_smp
from hf_lowlabel.models.segmentation import create_segmenter
from hf_lowlabel.records import RunRecord
from hf_lowlabel.tasks.segmentation import seen as seen_by


def make(folder, architecture="unet", side=96, value_range=None):
    torch.manual_seed(0)
    names = ["background", "cat", "dog"]
    model = create_segmenter(
        "test_resnet", 3, architecture=architecture, pretrained=False, class_names=names, image_size=side
    ).eval()
    model.config.value_range = value_range
    model.save_pretrained(folder)
    given = {"value_range": value_range} if value_range else {}
    facts = RunRecord("segmentation", class_names=names, hyperparameters=given)
    facts.to_json(folder / "run.json"), write_card(folder, facts)
    return model


@torch.no_grad()
def test_smp_loads_it_and_the_card_says_how(tmp_path, monkeypatch, hub):
    model, out = make(tmp_path / "run"), export_smp(tmp_path / "run", tmp_path / "exported")
    x = torch.randn(2, 3, 96, 64)
    assert torch.equal(smp.from_pretrained(str(out)).eval()(x), model(x).logits)
    card = ModelCard.load(out / "README.md")
    assert card.data.license is None and card.data.library_name == "segmentation-models-pytorch"
    monkeypatch.chdir(tmp_path)
    Image.new("I;16", (50, 40), 257 * 200).save("photo.jpg", "PNG")  # of 16 bits
    (snippet,) = re.findall(r"```python\n(.*?)```", card.text, re.S)
    scope = {}
    exec(snippet, scope)
    assert scope["mask"].shape == (40, 50) and scope["photo"].getpixel((0, 0)) == (200, 200, 200)
    push(out, "org/pets-smp")
    assert {"config.json", "model.safetensors", "README.md", "run.json"} <= set(
        hub.repos["model", "org/pets-smp"].content()
    )
    assert torch.equal(smp.from_pretrained("org/pets-smp").eval()(x), model(x).logits)


def test_what_smp_does_not_have_is_refused(tmp_path):
    make(tmp_path / "run", "deeplabv2")
    with pytest.raises(UserError, match="'deeplabv2', which smp does not have"):
        export_smp(tmp_path / "run", tmp_path / "out")
    with pytest.raises(UserError, match="There is no model.safetensors"):
        export_smp(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="is there already"):
        export_smp(tmp_path / "run", tmp_path / "run")


@pytest.mark.parametrize("encoder", ["cnn6_16", "resnet18_cifar"])
def test_an_encoder_that_timm_lacks_is_refused(tmp_path, encoder):
    """smp opens it in this process, where it is registered, and nowhere else."""
    args = dict(encoder_depth=3, decoder_channels=[16, 8, 8])
    create_segmenter(encoder, 2, architecture="unet", architecture_args=args, pretrained=False).save_pretrained(
        tmp_path / "run"
    )
    with pytest.raises(UserError, match=f"The encoder is '{encoder}', which timm lacks.*Push the model as it is"):
        export_smp(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [TypeError("no such argument"), KeyError("x"), KeyboardInterrupt()])
def test_nothing_is_left_of_what_smp_cannot_open(tmp_path, monkeypatch, error):
    make(tmp_path / "run")

    def fails(folder):
        raise error

    monkeypatch.setattr(smp, "from_pretrained", fails)
    refused = UserError if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(refused):
        export_smp(tmp_path / "run", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("side, size", [(96, (130, 71)), (96, (41, 60)), (70, (97, 97)), (None, (75, 50))])
def test_the_lines_of_the_card_answer_as_predict_does(tmp_path, monkeypatch, side, size):
    """Whatever the shape of a photo, at its size; larger and smaller ones than the network sees, or as they are."""
    rng = np.random.default_rng(0)
    values = np.kron(rng.integers(0, 4096, (size[1] // 8 + 1, size[0] // 8 + 1)), np.ones((8, 8), int))
    values = values[: size[1], : size[0]] + rng.integers(0, 300, size[::-1])
    make(tmp_path / "run", side=side, value_range=[0, 4095])
    out = export_smp(tmp_path / "run", tmp_path / "exported")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(values.astype(np.uint16)).save("photo.jpg", "PNG")
    (snippet,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)
    scope = {}
    exec(snippet, scope)
    (row,), _ = predict(["photo.jpg"], str(tmp_path / "run"), output=tmp_path / "answers", device="cpu")
    wanted = np.asarray(Image.open(tmp_path / "answers" / row["mask"]))
    found = scope["mask"].numpy()
    assert found.shape == wanted.shape == size[::-1] and len(np.unique(wanted)) > 1
    assert (found == wanted).mean() > 0.999
    (snippet,) = re.findall(r"```python\n(.*?)```", (tmp_path / "run" / "README.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)  # the lines of transformers, which name the folder
    exec(snippet, scope := {})
    with torch.no_grad():
        seen = as_seen(np.asarray(scope["image"]), long_side=side, **seen_by(scope["model"]))
    assert scope["x"].shape == seen.shape and torch.allclose(scope["x"], seen, atol=1e-5)
    assert (scope["mask"].numpy() == wanted).mean() > 0.999


def test_messages_name_the_run_and_not_what_was_made_of_it(tmp_path, hub, caplog, capsys):
    make(tmp_path / "run")
    with caplog.at_level("WARNING", "hf_lowlabel"):
        assert main(["push", str(tmp_path / "run"), "org/pets-smp", "--as-smp", "--revision", "half"]) == 0
    assert f"the card of {tmp_path / 'run'} states no licence" in caplog.text
    card = hub.repos["model", "org/pets-smp"].content("half")["README.md"].decode()
    assert 'smp.from_pretrained("org/pets-smp", revision="half")' in card
    hub.fault("/commit/", 403, times=-1)
    capsys.readouterr()
    assert main(["push", str(tmp_path / "run"), "org/pets-smp", "--as-smp"]) == 2
    said = capsys.readouterr().err
    assert f"the run is whole in {tmp_path / 'run'}." in said
    assert f"`hf-lowlabel push {tmp_path / 'run'} org/pets-smp --as-smp`" in said


def test_what_a_push_refuses_of_the_run(tmp_path, hub, capsys):
    from hf_lowlabel.training.folder import claim, release

    run = tmp_path / "run"
    make(run)

    def refused() -> str:
        assert main(["push", str(run), "org/pets-smp", "--as-smp"]) == 2 and not hub.requests
        return capsys.readouterr().err

    claim(run, resume=True)
    assert f"trains in {run}" in refused()
    release(run)
    (run / "old.pt").write_bytes(b"x")
    assert f"pickled files in {run} (old.pt)" in refused()
    (run / "old.pt").unlink()
    (tmp_path / "passwords").write_text("{}")
    (run / "metrics.json").symlink_to(tmp_path / "passwords")
    assert f"In {run}, metrics.json is no plain file" in refused()
    (run / "metrics.json").unlink()
    (run / "README.md").write_bytes(b"---\ntags: [a\n---\n")
    assert f"{run / 'README.md'} cannot be read" in refused()


@pytest.mark.parametrize(
    "words, said",
    [
        (["runs/s", "--as-smp", "--name", "foo"], "--name and --priors belong to a split manifest"),
        (["runs/s", "--as-smp", "--priors", "p.safetensors"], "--name and --priors belong to a split manifest"),
        (["runs/s", "--name", ""], "--name and --priors belong to a split manifest"),
        (["split.json", "--as-smp"], "--as-smp is for the run of a segmenter, and split.json is a split manifest"),
    ],
)
def test_flags_that_do_not_go_together(hub, words, said, capsys):
    assert main(["push", words[0], "org/x", *words[1:]]) == 2
    assert said in capsys.readouterr().err and not hub.requests

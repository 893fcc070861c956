"""Encoders of transformers from a Hub: what is fetched before what, licences, gates, shards."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from hf_lowlabel import auto, predict
from hf_lowlabel.errors import UserError
from hf_lowlabel.hub.card import write_card
from hf_lowlabel.models import create_backbone, create_classifier
from hf_lowlabel.records import RunRecord
from hf_lowlabel.training.lineage import starting_weights
from tests.transformers_repos import PROCESSOR, files_of, make_encoder, make_two_towers, save_repo, save_two_towers

CARD = "---\nlicense: other\nlicense_name: dinov3-license\n---\n# DINOv3\n"


def asked_for(hub, ending: str) -> list:
    return [path for method, path, status in hub.requests if path.endswith(ending) and status in (200, 302)]


@torch.no_grad()
def test_an_encoder_by_its_id_and_its_licence_on_the_card(hub, tmp_path):
    model = make_encoder("dinov3")
    commit = hub.add("model", "facebook/dinov3", files_of(save_repo(model, tmp_path / "repo", card=CARD)))
    backbone = create_backbone("facebook/dinov3").eval()
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(backbone.pooled(x), model(x).pooler_output, atol=1e-5, rtol=1e-5)
    report = backbone.load_report
    assert (report.source, report.revision, report.license) == ("facebook/dinov3", commit, "dinov3-license")
    assert create_classifier("facebook/dinov3", 2, revision=commit).load_report.head == "fresh"
    # the licence of what it was made from, from the report to the card
    stage = starting_weights(report.source, report.revision, report.license)
    assert stage.hub_id == "facebook/dinov3"
    backbone.save_pretrained(tmp_path / "run")
    write_card(tmp_path / "run", RunRecord(kind="backbone", lineage=[stage]))
    text = (tmp_path / "run" / "README.md").read_text()
    assert "facebook/dinov3: dinov3-license" in text


def test_gated_weights_ask_for_a_login(hub, tmp_path):
    hub.add("model", "other/gated", files_of(save_repo(make_encoder("vit"), tmp_path)))
    hub.repos["model", "other/gated"].gated = True
    with pytest.raises(UserError, match="other/gated is gated. Accept its conditions .*hf auth login"):
        create_backbone("other/gated")


@pytest.mark.parametrize(
    "config, match",
    [
        ({"model_type": "bert", "architectures": ["BertModel"]}, "org/model is a model of text"),
        ({"model_type": "whisper"}, "org/model is a model of audio"),
        ({"model_type": "detr"}, "org/model is of type detr"),
    ],
)
def test_no_weights_are_fetched_of_a_model_that_cannot_be_used(hub, config, match):
    hub.add("model", "org/model", {"config.json": json.dumps(config).encode(), "model.safetensors": b"x" * 1000})
    with pytest.raises(UserError, match=match):
        create_backbone("org/model")
    assert not asked_for(hub, "safetensors")


def test_a_repository_of_pickles(hub, tmp_path):
    files = files_of(save_repo(make_encoder("vit"), tmp_path))
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    hub.add("model", "org/pickles", files)
    with pytest.raises(UserError, match="no model.safetensors in org/pickles.*safetensors/convert"):
        create_backbone("org/pickles")
    assert not asked_for(hub, ".bin")


@torch.no_grad()
def test_of_shards_only_those_with_the_image_tower_are_fetched(hub, tmp_path):
    model = make_two_towers("CLIP")
    save_repo(model, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    parts = {"a.safetensors": "vision_model.e", "b.safetensors": "vision_model.p", "c.safetensors": ""}
    places: dict[str, str] = {}
    for file, start in parts.items():
        kept = {k: v for k, v in state.items() if k.startswith(start) and k not in places}
        save_file(kept, tmp_path / file, metadata={"format": "pt"})
        places |= dict.fromkeys(kept, file)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    hub.add("model", "org/big", files_of(tmp_path))
    x = torch.randn(1, 3, 32, 32)
    expected = model.vision_model(x).pooler_output
    for name in ("org/big", str(tmp_path)):
        torch.testing.assert_close(create_backbone(name).eval().pooled(x), expected, atol=1e-5, rtol=1e-5)
    assert asked_for(hub, "a.safetensors") and asked_for(hub, "b.safetensors") and not asked_for(hub, "c.safetensors")
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(UserError, match="no b.safetensors in .*, which its index names"):
        create_backbone(str(tmp_path))


@pytest.mark.parametrize("processor", [PROCESSOR, None])
def test_offline_an_encoder_in_the_cache_is_enough(hub, processor, tmp_path, monkeypatch):
    from huggingface_hub import constants

    hub.add("model", "org/vit", files_of(save_repo(make_encoder("vit"), tmp_path, processor)))
    create_backbone("org/vit")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert create_backbone("org/vit").load_report.matched
    with pytest.raises(UserError, match="cannot be reached"):
        create_backbone("org/other")


def test_the_saved_result_is_any_models(hub, tmp_path):
    """What was finetuned from such an encoder loads by transformers alone, without a trust flag."""
    hub.add("model", "org/siglip", files_of(save_repo(make_encoder("siglip"), tmp_path / "repo")))
    model = create_classifier("org/siglip", 2, class_names=["cat", "dog"], image_size=48).eval()
    model.save_pretrained(tmp_path / "run")
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "run").eval()
    x = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(again(x).logits, model(x).logits) and again.config.id2label == {0: "cat", 1: "dog"}


def test_images_and_words_by_an_id(hub, tmp_path):
    from hf_lowlabel.models.two_towers import load_two_towers

    save_two_towers("CLIP", tmp_path)
    commit = hub.add("model", "openai/clip", files_of(tmp_path))
    own = load_two_towers(str(tmp_path)).sentences(["a photo of a red."])
    assert torch.equal(load_two_towers("openai/clip", commit).sentences(["a photo of a red."]), own)
    assert torch.equal(load_two_towers(f"hf_hub:openai/clip@{commit}").sentences(["a photo of a red."]), own)


def test_a_model_without_words_is_refused_before_its_weights(hub, tmp_path):
    from hf_lowlabel.models.two_towers import load_two_towers

    hub.add("model", "org/vit", files_of(save_repo(make_encoder("vit"), tmp_path / "vit")))
    with pytest.raises(UserError, match="org/vit is of type vit, which has no features of both images and text"):
        load_two_towers("org/vit")
    save_two_towers("CLIP", tmp_path / "clip")
    files = {name: data for name, data in files_of(tmp_path / "clip").items() if not name.startswith("tokenizer")}
    hub.add("model", "org/mute", files)
    with pytest.raises(UserError, match="no tokenizer in org/mute"):
        load_two_towers("org/mute")
    with pytest.raises(UserError, match="'resnet18' is no folder and no Hub id"):
        load_two_towers("resnet18")
    assert not asked_for(hub, "safetensors")


def test_an_encoder_gives_no_answers(hub, tmp_path):
    """An encoder is refused by the verbs that answer, with what makes a classifier of it."""
    hub.add("model", "org/vit", files_of(save_repo(make_encoder("vit"), tmp_path / "vit")))
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="type 'vit' gives no answers here.*finetune --model"):
        predict(tmp_path / "a.png", "org/vit")
    assert not asked_for(hub, "safetensors")


@pytest.fixture
def photos(tmp_path):
    """Six pictures, the first four with a label."""
    for i in range(6):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (40 * i, 90, 120)).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "labels.csv").write_text("file_name,label\n0.png,cat\n1.png,dog\n2.png,cat\n3.png,dog\n")
    return tmp_path / "photos"


@pytest.mark.parametrize("labeled", [True, False])
@pytest.mark.parametrize(
    "change, says",
    [
        (dict(prompts=["a photo of it"]), "has not one {} in the place of the class"),
        (dict(prompts=["photos"]), "did you mean 'photo'"),
        (dict(text_model="org/vit"), "no features of both images and text"),
        (dict(text_model="org/pickled"), "no model.safetensors in org/pickled"),
        (dict(class_names=["cat"]), "do not fit the labels|two classes or more"),
        (dict(model="org/bert"), "org/bert is a model of text"),
        (dict(model="org/pickled"), "no model.safetensors in org/pickled"),
    ],
)
def test_auto_refuses_before_any_weights_are_fetched(change, says, labeled, hub, photos, tmp_path):
    """With labels and without: of the encoder, too, nothing large is there before the words are seen to be usable."""
    save_two_towers("CLIP", tmp_path / "clip")
    files = files_of(tmp_path / "clip")
    hub.add("model", "org/clip", files)
    hub.add("model", "org/vit", files_of(save_repo(make_encoder("vit"), tmp_path / "vit")))
    hub.add("model", "org/pickled", {k.replace("model.safetensors", "pytorch_model.bin"): v for k, v in files.items()})
    hub.add("model", "org/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x" * 1000})
    given = dict(model="org/vit", text_model="org/clip", class_names=["cat", "dog"]) | change
    labels = dict(labels=tmp_path / "labels.csv") if labeled else {}
    with pytest.raises(UserError, match=says) as error:
        auto(photos, output_dir=tmp_path / "run", train=False, device="cpu", **given, **labels)
    assert "\n" not in str(error.value)
    assert not [path for method, path, _ in hub.requests if method == "GET" and "/lfs/" in path]  # large files

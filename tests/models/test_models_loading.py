"""Names, folders and Hub ids; what is loaded and what is fresh; what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import TimmWrapperConfig

from hf_lowlabel.errors import UserError
from hf_lowlabel.models import (
    LowLabelBackbone,
    LowLabelForImageClassification,
    checkpoint_resolver,
    create_backbone,
    create_classifier,
)

ARCH = "resnet10t"


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory):
    """A folder as timm writes it, with float16 weights and 6 classes without names."""
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(1)
    net = timm.create_model(ARCH, num_classes=6)
    halves = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    save_file(halves, folder / "model.safetensors")
    cfg = {
        "input_size": [3, 64, 64],
        "crop_pct": 0.8,
        "interpolation": "bilinear",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "first_conv": "conv1.0",
        "classifier": "fc",
        "num_classes": 6,
        "license": "mit",
    }
    config = {"architecture": ARCH, "num_classes": 6, "num_features": 512, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def changed(folder, to, **config):
    """A copy of a folder with fields of its config changed."""
    shutil.copytree(folder, to)
    old = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**old, **config}))
    return to


# ---- what is loaded -------------------------------------------------------------------------------------------------


def test_half_precision_timm_folder(timm_folder):
    model = create_classifier(str(timm_folder), 6)
    stored = load_file(timm_folder / "model.safetensors")
    assert all(torch.equal(v, stored[k].to(v.dtype)) for k, v in model.timm_model.state_dict().items())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    report = model.load_report
    assert str(report) == f"weights of {timm_folder}, with their head"
    assert report.head == "kept" and not report.missing and not report.unexpected and len(report.matched) == len(stored)
    assert report.source == str(timm_folder) and report.license == "mit" and report.revision is None
    assert model.preprocessing["mean"] == [0.1, 0.2, 0.3] and model.preprocessing["input_size"] == [3, 64, 64]


def test_fresh_head_on_another_number_of_classes(timm_folder, caplog):
    caplog.set_level("DEBUG", "hf_lowlabel")
    model = create_classifier(str(timm_folder), 3, class_names=["a", "b", "c"], image_size=32, crop_pct=1.0)
    stored = load_file(timm_folder / "model.safetensors")
    body = {k: v for k, v in model.timm_model.state_dict().items() if not k.startswith("fc.")}
    assert all(torch.equal(v, stored[k].to(v.dtype)) for k, v in body.items())
    assert model.load_report.missing == ["fc.weight", "fc.bias"] == model.load_report.unexpected
    assert model.load_report.head == "fresh" and model.timm_model.fc.weight.std() > 0
    assert caplog.messages[0] == f"weights of {timm_folder}, and a new head"
    assert caplog.messages[2:] == [
        f"2 tensors of {timm_folder} {what}: fc.weight, fc.bias" for what in ("new", "not used")
    ]
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"} and model.config.label2id == {"a": 0, "b": 1, "c": 2}
    assert model.preprocessing["crop_pct"] == 1.0 and model.preprocessing["input_size"] == [3, 32, 32]


def test_head_stays_only_for_the_same_names_in_the_same_order(timm_folder, tmp_path):
    names = list("uvwxyz")
    folder = changed(timm_folder, tmp_path / "named", label_names=names)
    assert create_classifier(str(folder), 6, class_names=names).load_report.head == "kept"
    assert create_classifier(str(folder), 6).config.id2label[5] == "z"
    assert create_classifier(str(folder), 6, class_names=names[::-1]).load_report.head == "fresh"
    unnamed = create_classifier(str(timm_folder), 6, class_names=names)
    assert unnamed.load_report.head == "fresh"  # its six classes may be any


def test_classes_that_are_renamed_as_in_transformers_are_saved_so(timm_folder, tmp_path):
    """Also those of another number, which transformers gives a fresh head."""
    model = create_classifier(str(timm_folder), 2, class_names=["x", "y"])
    model.config.id2label, model.config.label2id = {0: "cat", 1: "dog"}, {"cat": 0, "dog": 1}
    model.save_pretrained(tmp_path / "renamed")
    assert type(model).from_pretrained(tmp_path / "renamed").config.id2label == {0: "cat", 1: "dog"}
    given = dict(num_labels=3, id2label={0: "a", 1: "b", 2: "c"}, ignore_mismatched_sizes=True)
    type(model).from_pretrained(tmp_path / "renamed", **given).save_pretrained(tmp_path / "three")
    assert type(model).from_pretrained(tmp_path / "three").config.id2label == given["id2label"]


def test_pretrained_backbone_becomes_a_classifier(timm_folder, tmp_path):
    backbone = create_backbone(str(timm_folder))
    assert backbone.load_report.head == "none" and backbone.load_report.unexpected == ["fc.weight", "fc.bias"]
    backbone.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["num_classes"] == 0
    model = create_classifier(str(tmp_path), 6)
    assert model.load_report.head == "fresh" and model.load_report.missing == ["fc.weight", "fc.bias"]
    body = backbone.timm_model.state_dict()
    assert all(torch.equal(v, body[k]) for k, v in model.timm_model.state_dict().items() if not k.startswith("fc."))
    with pytest.raises(UserError, match="without classes"):
        LowLabelForImageClassification.from_pretrained(tmp_path)


def test_weights_under_transformers_names(timm_folder, tmp_path):
    folder = changed(timm_folder, tmp_path / "prefixed")
    stored = load_file(folder / "model.safetensors")
    save_file({f"timm_model.{k}": v for k, v in stored.items()}, folder / "model.safetensors")
    assert create_classifier(str(folder), 6).load_report.head == "kept"


def test_random_weights_have_no_licence_of_others(timm_folder, tmp_path):
    """Nor their name and origin, whether timm knows them or a folder; what was loaded keeps its own."""
    of_weights = {"tag", "license", "origin_url", "paper_ids"}
    made = {name: create_backbone(name, pretrained=False) for name in ("resnet10t", str(timm_folder))}
    made["in memory"] = create_classifier(create_classifier(str(timm_folder), 6), 3, pretrained=False)
    for number, model in enumerate(made.values()):
        model.save_pretrained(tmp_path / str(number))
        for name in ("config.json", "preprocessor_config.json"):
            saved = json.loads((tmp_path / str(number) / name).read_text())["pretrained_cfg"]
            assert not of_weights & set(saved) and saved["mean"] and saved["classifier"] == "fc"
    create_backbone(str(timm_folder)).save_pretrained(tmp_path / "loaded")
    assert json.loads((tmp_path / "loaded" / "config.json").read_text())["pretrained_cfg"]["license"] == "mit"


def test_from_scratch_is_timms_own_initialisation():
    torch.manual_seed(3)
    expected = timm.create_model(ARCH, num_classes=4).state_dict()
    torch.manual_seed(3)
    model = create_classifier(ARCH, 4, pretrained=False)
    assert all(torch.equal(v, expected[k]) for k, v in model.timm_model.state_dict().items())
    assert model.load_report.source == f"random weights ({ARCH})" and not model.load_report.matched
    assert not model.timm_model.layer1[0].bn2.weight.any()  # the zero gain at the end of a residual survives


def test_from_pretrained_fills_what_the_file_lacks(timm_folder, tmp_path):
    create_classifier(str(timm_folder), 6).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    some = {k: v for k, v in stored.items() if not k.startswith(("fc.", "layer4.0.bn2."))}
    save_file(some, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = LowLabelForImageClassification.from_pretrained(tmp_path).timm_model
    assert not model.layer4[0].bn2.weight.any() and torch.equal(model.layer4[0].bn2.running_var, torch.ones(512))
    assert 0 < model.fc.weight.std() < 0.1 and torch.equal(model.conv1[0].weight, stored["conv1.0.weight"])
    other = LowLabelForImageClassification.from_pretrained(tmp_path, num_labels=9, ignore_mismatched_sizes=True)
    assert other.timm_model.fc.weight.shape == (9, 512) and "_fresh" not in other.__dict__


@torch.no_grad()
def test_image_size_of_a_transformer_adapts_its_positions(tmp_path):
    model = create_classifier("test_vit", 4, pretrained=False).eval()
    model.save_pretrained(tmp_path / "a")
    small = create_classifier(str(tmp_path / "a"), 4, image_size=64).eval()
    assert small.load_report.head == "kept"
    assert small.timm_model.pos_embed.shape[1] < model.timm_model.pos_embed.shape[1]
    small.save_pretrained(tmp_path / "b")
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(create_classifier(str(tmp_path / "b"), 4).eval()(x).logits, small(x).logits)
    assert torch.equal(timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True).eval()(x), small(x).logits)
    wide = create_backbone("test_vit", pretrained=False, model_args={"dynamic_img_size": True})
    assert wide.feature_map(torch.randn(1, 3, 64, 96)).shape[2:] == (4, 6)  # patches of 16 px


def test_patch_tokens_stand_in_their_grid():
    backbone = create_backbone("test_vit3", pretrained=False, image_size=64).eval()
    net, x = backbone.timm_model, torch.randn(2, 3, 64, 64)
    tokens = net.forward_features(x)[:, net.num_prefix_tokens :]  # [B, h w, D], row by row
    last = backbone.feature_map(x)
    assert torch.equal(last[:, :, 1, 2], tokens[:, 1 * last.shape[3] + 2])


# ---- what a model is made of ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ARCH, "mobilenetv3_small_050", "test_vit", "test_convnext"])
def test_body_and_head_share_out_the_parameters(name):
    model = create_classifier(name, 3, pretrained=False)
    body = {id(p) for p in model.body_parameters()}
    head = {n for n, p in model.named_parameters() if id(p) not in body}
    last = model.timm_model.get_classifier()
    names = [k for k, m in model.timm_model.named_modules() if m is last]
    assert head == {f"timm_model.{names[0]}.weight", f"timm_model.{names[0]}.bias"}
    x = torch.randn(2, 3, *model.preprocessing["input_size"][1:])
    model(x).logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.features(x).shape == (2, model.num_features) == (2, last.in_features)


def test_dropout_acts_in_training_only_and_is_saved(tmp_path):
    model = create_classifier(ARCH, 3, pretrained=False, drop_rate=0.5)
    x = torch.randn(4, 3, 128, 128)
    with_dropout, model.timm_model.drop_rate = (model.train().features(x) == 0).float().mean(), 0.0
    without = (model.train().features(x) == 0).float().mean()
    assert without < 0.8 and abs(with_dropout - (without + 1) / 2) < 0.05
    model.timm_model.drop_rate = 0.5
    assert torch.equal(model.eval()(x).logits, model(x).logits)
    model.save_pretrained(tmp_path)
    assert create_classifier(str(tmp_path), 3).timm_model.drop_rate == 0.5
    assert create_classifier(str(tmp_path), 3, drop_rate=0.0).timm_model.drop_rate == 0.0


def test_arguments_that_no_file_can_hold_are_refused():
    with pytest.raises(UserError, match="The argument act_layer of the network is .* which is no JSON"):
        create_classifier("vit_tiny_patch16_224", 3, pretrained=False, model_args={"act_layer": torch.nn.ReLU})


def test_loss_and_gradients_through_transformers_interface():
    model = create_classifier(ARCH, 3, pretrained=False)
    out = model(torch.randn(4, 3, 32, 32), labels=torch.tensor([0, 1, 2, 0]))
    expected = torch.nn.functional.cross_entropy(out.logits, torch.tensor([0, 1, 2, 0]))
    assert torch.allclose(out.loss, expected)


def test_direct_construction_and_deepcopy():
    import copy

    model = LowLabelForImageClassification(TimmWrapperConfig(architecture=ARCH, num_labels=3)).eval()
    x = torch.randn(1, 3, 32, 32)
    twin, logits = copy.deepcopy(model), model(x).logits
    assert torch.equal(twin.classify(twin.features(x)), logits)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(twin.classify(twin.features(x)), logits)  # nothing is shared
    backbone = LowLabelBackbone(TimmWrapperConfig(architecture=ARCH)).eval()
    assert torch.equal(backbone(x).pooler_output, backbone.pooled(x))


# ---- timm names and the Hub -----------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Repositories as folders {repo: folder}; every request is noted."""
    repos, asked = {}, []

    def download(repo, filename, *, revision=None):
        asked.append((repo, filename, revision))
        if repo not in repos:
            raise LocalEntryNotFoundError("offline")
        path = repos[repo] / filename
        if not path.is_file():
            raise EntryNotFoundError(f"no {filename}")
        return str(path)

    monkeypatch.setattr(checkpoint_resolver, "hf_hub_download", download)
    return repos, asked


def test_timm_name_takes_the_safetensors_of_its_repository(hub, tmp_path):
    repos, asked = hub
    snapshot = tmp_path / "snapshots" / ("0123456789" * 4)
    snapshot.mkdir(parents=True)
    repos["timm/resnet10t.c3_in1k"] = snapshot
    torch.manual_seed(2)
    net = timm.create_model(ARCH)
    save_file(net.state_dict(), snapshot / "model.safetensors")
    model = create_classifier(ARCH, 5)
    assert asked == [("timm/resnet10t.c3_in1k", "model.safetensors", None)]
    assert torch.equal(model.timm_model.conv1[0].weight, net.conv1[0].weight)
    assert model.load_report.source == "resnet10t.c3_in1k" and model.load_report.revision == "0123456789" * 4
    assert model.preprocessing["input_size"] == [3, 176, 176]
    imagenet = create_classifier("resnet10t.c3_in1k", 1000)
    assert imagenet.load_report.head == "kept" and imagenet.config.id2label[3].startswith("tiger shark")


@pytest.mark.parametrize("name", ["org/net", "hf_hub:org/net", "hf-hub:org/net"])
def test_hub_ids(hub, timm_folder, name):
    repos, asked = hub
    repos["org/net"] = timm_folder
    model = create_classifier(name, 6, revision="v1")
    assert model.load_report.head == "kept" and model.load_report.source == "org/net"
    assert asked == [("org/net", "config.json", "v1"), ("org/net", "model.safetensors", "v1")]
    del asked[:]
    create_backbone(f"{name}@v2", pretrained=False)
    assert asked == [("org/net", "config.json", "v2")]


class Canary:
    """Unpickling it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickled_weights_are_refused_unopened(hub, timm_folder, tmp_path):
    import pickle

    repos, _ = hub
    folder, canary = changed(timm_folder, tmp_path / "bin"), tmp_path / "opened"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(UserError, match=r"pytorch_model.bin.*save_file"):
        create_classifier(str(folder), 6)
    with pytest.raises(UserError, match="pytorch_model.bin"):
        LowLabelForImageClassification.from_pretrained(folder)
    repos["org/bin"] = repos["timm/resnet10t.c3_in1k"] = folder
    with pytest.raises(UserError, match="no model.safetensors in org/bin"):
        create_classifier("org/bin", 6)
    with pytest.raises(UserError, match="no model.safetensors in timm/resnet10t.c3_in1k"):
        create_backbone(ARCH)
    with pytest.raises(UserError, match="use_safetensors"):
        LowLabelBackbone.from_pretrained(folder, use_safetensors=False)
    assert not canary.exists()


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet81", "'resnet18'"),
        ("wrn_28_22", "'wrn_28_2'"),
        ("resnet18.a1_in1", "'a1_in1k'"),
        ("wrn_28_2", "from-scratch"),
        ("./nowhere", "no folder"),
        ("local-dir:nowhere", "no folder"),
        ("org/none", "cannot be reached"),
    ],
)
def test_wrong_names_say_what_is_right(hub, name, said):
    with pytest.raises(UserError, match=said):
        create_classifier(name, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_labels": 0}, "num_labels=0"),
        ({"num_labels": ["a", "b"]}, "is no number of classes. Give 1 or more, and their names as class_names."),
        ({"class_names": ["a", "b"]}, "2 class names for 3"),
        ({"class_names": ["a", "b", "a"]}, r"twice \(a\)"),
        ({"image_size": 0}, "image_size=0"),
        ({"mean": (0.5,)}, "1 numbers for mean"),
        ({"model_args": {"no_such": 1}}, "no_such"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(UserError, match=said):
        create_classifier(ARCH, **{"num_labels": 3, "pretrained": False, **arguments})
    with pytest.raises(UserError, match="test_vit"):
        create_backbone("test_vit", pretrained=False, output_stride=8)


def test_damaged_and_foreign_folders(timm_folder, tmp_path):
    with pytest.raises(UserError, match="no config.json"):
        create_classifier(str(tmp_path), 3)
    broken = changed(timm_folder, tmp_path / "a")
    (broken / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json is not JSON"):
        create_classifier(str(broken), 3)
    with pytest.raises(UserError, match="config.json promises one encoder"):
        (broken / "config.json").write_text('{"model_type": "resnet"}')
        create_classifier(str(broken), 3)
    broken = changed(timm_folder, tmp_path / "b", architecture="resnet10z")
    with pytest.raises(UserError, match="'resnet10t'"):
        create_classifier(str(broken), 3)
    broken = changed(timm_folder, tmp_path / "c", architecture="resnet18")
    with pytest.raises(UserError, match="do not fit resnet18"):
        create_classifier(str(broken), 3)
    broken = changed(timm_folder, tmp_path / "d")
    data = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged model.safetensors"):
        create_classifier(str(broken), 3)
    broken = changed(timm_folder, tmp_path / "e")
    stored = load_file(timm_folder / "model.safetensors")
    save_file({k: v for k, v in stored.items() if k != "layer2.0.conv1.weight"}, broken / "model.safetensors")
    with pytest.raises(UserError, match="layer2.0.conv1.weight"):
        create_classifier(str(broken), 3)
    (broken / "model.safetensors").rename(broken / "model.safetensors.index.json")
    with pytest.raises(UserError, match="sharded"):
        create_classifier(str(broken), 3)


@pytest.mark.parametrize("where", ["model_args", "pretrained_cfg"])
@pytest.mark.parametrize("size", [None, 32])
def test_networks_of_other_channels_are_refused(timm_folder, tmp_path, where, size):
    cfg = json.loads((timm_folder / "config.json").read_text())["pretrained_cfg"]
    said = {"in_chans": 4} if where == "model_args" else cfg | {"input_size": [4, 64, 64]}
    folder = str(changed(timm_folder, tmp_path / "four", **{where: said}))
    for create in (create_backbone, lambda name, **given: create_classifier(name, 3, **given)):
        with pytest.raises(UserError, match="sees 4 channels. Take one of red, green and blue"):
            create(folder, image_size=size)


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg", "pretrained"])
def test_a_configuration_leads_to_no_other_file(timm_folder, tmp_path, argument):
    args = {argument: str(tmp_path / "other.bin")}
    folder = changed(timm_folder, tmp_path / "led", model_args=args, model_type="timm_wrapper")
    for load in (
        lambda: create_classifier(str(folder), 6),
        lambda: create_backbone(str(folder), pretrained=False),
        lambda: LowLabelForImageClassification.from_pretrained(folder),
    ):
        with pytest.raises(UserError, match=argument):
            load()

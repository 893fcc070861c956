"""Pushed models, loaded by one line each: in a process without this package, and in ours; and what must not load."""

from __future__ import annotations

import json
import os
import pickle
import time

import numpy as np
import pytest
import torch

from hf_lowlabel.errors import UserError
from hf_lowlabel.hub.card import write_card
from hf_lowlabel.hub.push import push
from hf_lowlabel.models import LowLabelBackbone, LowLabelForImageClassification, create_backbone, create_classifier
from hf_lowlabel.records import RunRecord
from tests import strangers

WITHOUT_PACKAGE = """
import json, os, sys
sys.modules["hf_lowlabel"] = None
import numpy as np, timm, torch
import segmentation_models_pytorch as smp
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline
from PIL import Image

root, old = sys.argv[1:]
x = torch.from_numpy(np.load(f"{root}/x.npy"))
image = Image.fromarray((np.arange(32 * 32 * 3) % 251).reshape(32, 32, 3).astype(np.uint8))
out, said = {}, {}
with torch.no_grad():
    out["auto"] = AutoModelForImageClassification.from_pretrained("org/pets").eval()(x).logits
    out["pinned"] = AutoModelForImageClassification.from_pretrained("org/pets", revision=old).eval()(x).logits
    out["timm"] = timm.create_model("hf-hub:org/pets", pretrained=True).eval()(x)
    out["private"] = AutoModel.from_pretrained("org/pets-byol").eval()(x).pooler_output
    out["timm_backbone"] = timm.create_model("hf-hub:org/pets-byol", pretrained=True, num_classes=0).eval()(x)
    out["features_only"] = timm.create_model("hf-hub:org/pets-byol", pretrained=True, features_only=True).eval()(x)[-1]
    out["smp"] = smp.Unet("tu-hf-hub:org/pets-byol", encoder_weights=True).encoder.eval()(x)[-1]
    said["pipeline"] = pipeline("image-classification", "org/pets", device="cpu")(image)[0]["label"]
    out["processed"] = AutoImageProcessor.from_pretrained("org/pets")(image, return_tensors="pt")["pixel_values"]
from datasets import load_dataset
table = load_dataset("org/splits", "pets-2")
said["split"] = {part: table[part][:] for part in table}
for name, token in {"org/pets-byol": "hf_other", "org/gated": "hf_other", "org/pets": "hf_" + "x" * 30}.items():
    try:
        AutoModel.from_pretrained(name, token=token, force_download=True)
        said[name] = "loaded"
    except OSError as error:
        said[name] = str(error)[:200]
np.savez(f"{root}/out.npz", **{k: v.numpy() for k, v in out.items()})
json.dump(said, open(f"{root}/said.json", "w"))
"""


@pytest.fixture(scope="module")
def pushed(module_hub, tmp_path_factory):
    """Both kinds of model on the Hub, the classifier in two versions, and what a process without the package read."""
    from hf_lowlabel.data.splits.splits import Split
    from hf_lowlabel.hub.splits import push_split

    hub, root = module_hub, tmp_path_factory.mktemp("pushed")
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    np.save(root / "x.npy", x.numpy())
    networks, commits = {}, []
    for version in range(2):
        model = create_classifier("test_resnet", 2, pretrained=False, class_names=["cat", "dog"], image_size=32)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.02 * torch.randn_like(p))
        networks[version] = model.eval()
        commits.append(save_and_push(model, root / f"pets{version}", "org/pets", "classification").commit)
    networks["backbone"] = create_backbone(str(root / "pets1")).eval()
    save_and_push(networks["backbone"], root / "byol", "org/pets-byol", "backbone", private=True)
    hub.add("model", "org/gated", {"config.json": (root / "byol" / "config.json").read_bytes()})
    hub.repos["model", "org/gated"].gated = True
    push_split(
        Split("pets", ["cat", "dog"], {"a.png": "cat", "b.png": "dog"}, seed=1, test=["c.png"]),
        "org/splits",
        name="pets-2",
    )
    env = {**os.environ, **hub.env(root / "home", "hf_write"), "PYTHONPATH": ""}
    done = strangers.ran(WITHOUT_PACKAGE, str(root), commits[0], env=env, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    out = {k: torch.from_numpy(v) for k, v in np.load(root / "out.npz").items()}
    return networks, x, out, json.loads((root / "said.json").read_text())


def save_and_push(model, folder, repo_id, kind, **arguments):
    model.save_pretrained(folder)
    facts = RunRecord(
        kind, architecture="test_resnet", class_names=["cat", "dog"] if kind == "classification" else [], license="mit"
    )
    facts.to_json(folder / "run.json")
    write_card(folder, facts)
    return push(folder, repo_id, **arguments)


@torch.no_grad()
def test_without_the_package(pushed):
    networks, x, out, said = pushed
    first, second, backbone = networks[0], networks[1], networks["backbone"]
    assert torch.equal(out["auto"], second(x).logits) and torch.equal(out["timm"], second(x).logits)
    assert torch.equal(out["pinned"], first(x).logits) and not torch.equal(out["pinned"], out["auto"])
    assert torch.equal(out["private"], backbone.pooled(x)) and torch.equal(out["timm_backbone"], backbone.pooled(x))
    assert torch.equal(out["features_only"], backbone.feature_map(x)) and torch.equal(
        out["smp"], backbone.feature_map(x)
    )
    assert said["pipeline"] in ("cat", "dog") and out["processed"].shape == (1, 3, 32, 32)
    assert said["split"] == {
        "labeled": {"id": ["a.png", "b.png"], "label": ["cat", "dog"]},
        "test": {"id": ["c.png"], "label": [None]},
    }


def test_what_is_closed_stays_closed(pushed):
    said = pushed[3]
    assert said["org/pets-byol"] != "loaded"
    assert said["org/gated"] != "loaded"  # what the client says differs from call to call
    assert said["org/pets"] != "loaded"


@torch.no_grad()
def test_ours(pushed):
    networks, x, *_ = pushed
    assert torch.equal(
        LowLabelForImageClassification.from_pretrained("org/pets").eval()(x).logits, networks[1](x).logits
    )
    assert torch.equal(
        LowLabelBackbone.from_pretrained("org/pets-byol").eval().pooled(x), networks["backbone"].pooled(x)
    )
    assert torch.equal(create_backbone("org/pets-byol").eval().pooled(x), networks["backbone"].pooled(x))
    assert torch.equal(create_classifier("hf_hub:org/pets", 2).eval()(x).logits, networks[1](x).logits)


def test_lineage_of_a_pushed_model(pushed, module_hub):
    from hf_lowlabel.training.lineage import lineage_of, starting_weights

    module_hub.add(
        "model",
        "org/lineage",
        {
            "run.json": json.dumps(
                {
                    "kind": "backbone",
                    "hub_id": "org/lineage",
                    "lineage": [{"what": "target pretraining", "method": "byol"}],
                }
            ).encode()
        },
    )
    (stage,) = lineage_of("hf_hub:org/lineage", "main")
    assert (stage.hub_id, stage.method, stage.revision) == ("org/lineage", "byol", "main")
    assert lineage_of("org/splits-of-nobody") == [] and lineage_of("resnet18") == []
    hub_ids = {
        name: starting_weights(name).hub_id
        for name in ("resnet18.a1_in1k", "hf-hub:org/pets@main", "random weights (resnet18)")
    }
    assert hub_ids == {
        "resnet18.a1_in1k": "timm/resnet18.a1_in1k",
        "hf-hub:org/pets@main": "org/pets",
        "random weights (resnet18)": None,
    }
    assert starting_weights("random weights (resnet18)").name == "resnet18"


# ---- what must not happen -------------------------------------------------------------------------------------------


class Trap:
    """A pickle that leaves a mark when it is opened."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def ways_to_load(repo):
    from transformers import AutoModelForImageClassification

    return [
        lambda: LowLabelForImageClassification.from_pretrained(repo),
        lambda: LowLabelBackbone.from_pretrained(repo),
        lambda: create_classifier(repo, 2),
        lambda: create_backbone(repo),
        lambda: AutoModelForImageClassification.from_pretrained(repo, use_safetensors=True),
    ]


def test_a_planted_pickle_is_never_opened(pushed, module_hub, tmp_path):
    mark, config = tmp_path / "mark", module_hub.repos["model", "org/pets"].content()["config.json"]
    planted = {name: pickle.dumps(Trap(mark)) for name in ("pytorch_model.bin", "model.pth")}
    module_hub.add("model", "org/only-pickle", {"config.json": config, **planted})
    for load in ways_to_load("org/only-pickle"):
        with pytest.raises((UserError, OSError)) as error:
            load()
        own = "There is no model.safetensors in org/only-pickle"
        assert (own if isinstance(error.value, UserError) else "Can't load the model for 'org") in str(error.value)
    module_hub.add("model", "org/both", {**module_hub.repos["model", "org/pets"].content(), **planted})
    for load in ways_to_load("org/both"):
        load()
    assert not mark.exists()
    assert not [
        path
        for method, path, _ in module_hub.requests
        if "pytorch_model.bin" in path and method == "GET" and "/resolve/" in path
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "local-dir:/tmp/evil"},
        {"architecture": "../evil"},
        {"model_args": {"checkpoint_path": "../../evil.pth"}},
        {"model_args": {"pretrained_cfg": {"file": "/tmp/evil.pth"}}},
        {"model_args": {"pretrained_cfg_overlay": {"file": "/tmp/evil.pth"}}},
        {"pretrained_cfg": {"file": "/tmp/evil.pth", "custom_load": True}},
    ],
    ids=["folder", "path", "checkpoint", "cfg", "overlay", "file"],
)
def test_a_config_that_leads_out_of_its_repository_is_refused(pushed, module_hub, change, monkeypatch):
    there = module_hub.repos["model", "org/pets"].content()
    config = {**json.loads(there["config.json"])}
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    module_hub.add("model", "org/leads-out", {**there, "config.json": json.dumps(config).encode()})
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("a pickle was opened"))
    words = f"unknown architecture .*'{change.get('architecture')}'" if "architecture" in change else "read other files"
    for load in ways_to_load("org/leads-out")[:4]:
        if "pretrained_cfg" in change:  # timm's note of where weights came from, which ours do not follow
            load()
            continue
        with pytest.raises(UserError, match=words):
            load()


def test_what_the_hub_says_is_told_as_it_is(pushed, module_hub, tmp_path, monkeypatch):
    """A revision that is not there, a Hub that is down: the model itself is not missing."""
    from hf_lowlabel.data.splits.published import fetch

    there = module_hub.repos["model", "org/pets"].content()
    module_hub.add("model", "org/fresh", there)
    with pytest.raises(UserError, match="no revision 'nope' of org/fresh on the Hub.*--model-revision"):
        create_backbone("org/fresh", revision="nope")
    with pytest.raises(UserError, match="no revision 'nope' of org/fresh"):
        create_backbone("hf_hub:org/fresh@nope")
    with pytest.raises(UserError, match="no model 'org/none' on the Hub"):
        create_backbone("org/none")
    kept = list(module_hub.faults)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between attempts
    for status in (503, 429):
        module_hub.fault("/resolve/", status, times=-1, method="GET")
        with pytest.raises(UserError, match=f"The Hub did not answer \\({status}\\). Try again"):
            create_backbone("org/fresh")
        with pytest.raises(UserError, match=f"The Hub did not answer \\({status}\\). Try again"):
            fetch("hub:org/fresh", "config.json")
        module_hub.faults[:] = kept


def test_a_segmenter_is_no_encoder(tmp_path, module_hub):
    """It says so in one sentence, from a folder and from the Hub."""
    from hf_lowlabel.models.segmentation import create_segmenter

    create_segmenter("test_resnet", 2, architecture="unet", pretrained=False).save_pretrained(tmp_path / "seg")
    files = {path.name: path.read_bytes() for path in (tmp_path / "seg").iterdir() if path.is_file()}
    module_hub.add("model", "org/seg", files)
    for source in (str(tmp_path / "seg"), "org/seg"):
        for create in (create_backbone, lambda name: create_classifier(name, 2)):
            with pytest.raises(UserError, match="is a segmenter .unet on test_resnet.*--model test_resnet;") as found:
                create(source)
            assert "known:" not in str(found.value)


def test_code_of_a_repository_is_never_run_unasked(pushed, module_hub, tmp_path):
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    there, mark = module_hub.repos["model", "org/pets"].content(), tmp_path / "mark"
    config = json.loads(there["config.json"])
    config["auto_map"] = {
        "AutoConfig": "evil.Config",
        "AutoModel": "evil.Model",
        "AutoModelForImageClassification": "evil.Model",
    }
    code = f"import os\nos.mkdir({str(mark)!r})\n".encode()
    module_hub.add("model", "org/code", {**there, "config.json": json.dumps(config).encode(), "evil.py": code})
    config["model_type"] = "evil"
    module_hub.add("model", "org/only-code", {**there, "config.json": json.dumps(config).encode(), "evil.py": code})
    module_hub.requests.clear()
    for load in ways_to_load("org/code"):
        load()  # as what it says it is; its code is not looked at
    for cls in (AutoConfig, AutoModel):
        with pytest.raises(ValueError, match="trust_remote_code"):
            cls.from_pretrained("org/only-code", trust_remote_code=False)
    AutoImageProcessor.from_pretrained("org/code")
    assert not mark.exists() and not [
        path for _, path, _ in module_hub.requests if "evil.py" in path and "/resolve/" in path
    ]

"""AdaptFormer's branches: the paper's sum, what moves, and a saved model that is an ordinary one."""

import math
import shutil

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from hf_lowlabel import evaluate, finetune
from hf_lowlabel.errors import UserError
from hf_lowlabel.models import create_backbone, create_classifier
from hf_lowlabel.models.adaptformer import AdaptedMlp, adapted_mlps, add_adaptformer
from hf_lowlabel.models.lora import merged

from .conftest import FINETUNE, tensors

TINY_VIT = dict(depth=2, embed_dim=24, num_heads=2, patch_size=4)
NETWORKS = [
    ("vit_tiny_patch16_224", TINY_VIT, 8),
    ("deit3_small_patch16_224", dict(TINY_VIT, init_values=0.5), 8),  # with a factor for each channel behind the MLP
    ("beit_base_patch16_224", dict(depth=2, embed_dim=32, num_heads=2, init_values=0.5), 32),
    ("vit_small_patch16_dinov3", dict(depth=2, embed_dim=32, num_heads=2, init_values=0.5), 32),
]


def test_the_branch_is_equation_3():
    mlp = timm.layers.Mlp(6, 10)
    branch, x = AdaptedMlp(mlp, 4), torch.randn(3, 5, 6)
    assert torch.equal(branch(x), mlp(x))  # it starts at nothing
    torch.nn.init.normal_(branch.up.weight)
    torch.nn.init.normal_(branch.up.bias)
    down, up = ([v.detach().double().numpy() for v in (m.weight, m.bias)] for m in (branch.down, branch.up))
    h = x.double().numpy() @ down[0].T + down[1]
    h = h * (1 + np.vectorize(math.erf)(h / math.sqrt(2))) / 2  # GELU
    expected = mlp(x).detach().double().numpy() + 0.1 * (h @ up[0].T + up[1])
    np.testing.assert_allclose(branch(x).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("name, args, size", NETWORKS)
def test_branches_alone_train_and_become_part_of_a_wider_network(name, args, size, tmp_path):
    torch.manual_seed(0)
    model = create_classifier(name, 3, pretrained=False, image_size=size, model_args=args).eval()
    torch.nn.init.normal_(model.timm_model.get_classifier().weight)  # some families start with a tiny one
    x = torch.rand(4, 3, size, size)
    with torch.no_grad():
        before = model(x).logits
    add_adaptformer(model, 5)
    with torch.no_grad():
        assert torch.equal(model(x).logits, before) and len(adapted_mlps(model)) == 2
    model(x).logits.square().sum().backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    heads = {id(p) for p in model.parameters()} - {id(p) for p in model.body_parameters()}
    assert all(p.grad is not None for p in trained.values())
    assert all(".up." in n or ".down." in n or id(p) in heads for n, p in trained.items()) and len(trained) > 8
    with torch.no_grad():
        for n, p in trained.items():
            p.add_(torch.randn_like(p)) if ".up." in n else None
        adapted, whole = model(x).logits, merged(model)
        assert (adapted - before).abs().max() > 1e-3
        torch.testing.assert_close(whole(x).logits, adapted, rtol=1e-4, atol=1e-5)
    assert adapted_mlps(model) and not adapted_mlps(whole) and "mlp_ratio" not in (model.config.model_args or {})
    whole.save_pretrained(tmp_path)
    with torch.no_grad():
        for loaded in (AutoModelForImageClassification.from_pretrained(tmp_path), create_classifier(str(tmp_path), 3)):
            assert torch.equal(loaded.eval()(x).logits, whole(x).logits)
        assert torch.equal(timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()(x), whole(x).logits)


@pytest.mark.parametrize("name", ["cnn6_16", "swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224"])
def test_networks_that_cannot_be_widened_are_refused(name):
    with pytest.raises(UserError, match="--lora-rank instead of --adapter-width"):
        add_adaptformer(create_classifier(name, 3, pretrained=False), 5)


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("vit")
    create_backbone("vit_tiny_patch16_224", pretrained=False, image_size=8, model_args=TINY_VIT).save_pretrained(folder)
    return str(folder)


def test_a_run_saves_a_wider_network_whose_old_weights_have_not_moved(vit, few_images, tmp_path):
    args = {
        **FINETUNE,
        "from_scratch": False,
        "model": vit,
        "adapter_width": 3,
        "optimizer": "adamw",
        "learning_rate": 1e-2,
    }
    run = finetune(**args, method="mean-teacher", save_total_limit=9, output_dir=str(tmp_path / "run"))
    start, saved = load_file(f"{vit}/model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    for name, weight in start.items():
        if name.endswith("fc2.bias"):  # with the branch's
            continue
        assert torch.equal(saved[name][tuple(map(slice, weight.shape))], weight), name
    assert saved["blocks.0.mlp.fc1.weight"].shape == (4 * 24 + 3, 24)
    assert saved["blocks.1.mlp.fc2.weight"][:, 96:].abs().max() > 0
    assert evaluate(str(tmp_path / "run"), "digits")["accuracy"] == run.metrics["accuracy"]
    shutil.copytree(tmp_path / "run", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "step-00000006")
    finetune(**args, method="mean-teacher", save_total_limit=9, output_dir=str(tmp_path / "killed"), resume=True)
    expected, found = tensors(tmp_path / "run", 6), tensors(tmp_path / "killed", 6)
    assert any(".down." in k for k in expected) and all(torch.equal(expected[k], found[k]) for k in expected)

"""Low-rank adapters: what moves, what is saved, and that a resumed run is the same."""

import copy
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageClassification

from hf_lowlabel import evaluate, finetune, pretrain
from hf_lowlabel.errors import UserError
from hf_lowlabel.models import create_backbone, create_classifier
from hf_lowlabel.models.lora import adapted_layers, add_lora, merged
from hf_lowlabel.tasks import get_task

from .conftest import FINETUNE, tensors

TINY_VIT = dict(depth=2, embed_dim=24, num_heads=2, patch_size=4)
pytest.importorskip("peft")


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> str:
    """A folder with the weights of a tiny vision transformer for 8 px images."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    create_backbone("vit_tiny_patch16_224", pretrained=False, image_size=8, model_args=TINY_VIT).save_pretrained(folder)
    return str(folder)


def settings(vit: str, **more) -> dict:
    return {
        **FINETUNE,
        "from_scratch": False,
        "model": vit,
        "lora_rank": 2,
        "optimizer": "adamw",
        "learning_rate": 1e-2,
        **more,
    }


def networks():
    return [
        ("vit_tiny_patch16_224", TINY_VIT, 8, 8),
        ("beit_base_patch16_224", dict(depth=1, embed_dim=32, num_heads=2), 32, 3),
        ("cnn6_16", {}, 16, 6),
        ("mobilenetv3_small_050", {}, 32, None),
    ]


@pytest.mark.parametrize("name, args, size, layers", networks())
def test_adapters_start_at_nothing_and_merge_into_the_same_logits(name, args, size, layers):
    """BEiT reads the weight of its qkv layer itself: an adapter there would never be trained."""
    torch.manual_seed(0)
    model = create_classifier(name, 3, pretrained=False, image_size=size, model_args=args).eval()
    x = torch.rand(4, 3, size, size)
    with torch.no_grad():
        before = model(x).logits
    names = set(model.state_dict())
    plain = add_lora(copy.deepcopy(model), 2)
    add_lora(model, 2, alpha=4.0)
    for net, scale in ((plain, 1), (model, 2)):  # alpha / rank; alpha is the rank unless it is given
        assert {net.get_submodule(n).scaling["default"] for n in adapted_layers(net)} == {scale}
    with torch.no_grad():
        assert torch.equal(model(x).logits, before)
    assert layers in (None, len(adapted_layers(model)))
    model(x).logits.square().sum().backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
    heads = {id(p) for p in model.parameters()} - {id(p) for p in model.body_parameters()}
    assert all("lora_" in n or id(p) in heads for n, p in trained.items()) and any(
        id(p) in heads for p in trained.values()
    )
    with torch.no_grad():
        for n, p in trained.items():
            p.add_(0.2 * torch.randn_like(p)) if "lora_B" in n else None
        adapted, whole = model(x).logits, merged(model)
        assert (adapted - before).abs().max() > 1e-6
        torch.testing.assert_close(whole(x).logits, adapted, rtol=1e-4, atol=1e-5)
    assert set(whole.state_dict()) == names and adapted_layers(model)


@pytest.mark.parametrize("method", ["fixmatch", "mean-teacher", "vat", "simmatch"])
def test_base_weights_do_not_move_and_the_saved_model_needs_no_peft(method, vit, few_images, tmp_path):
    run = finetune(
        **settings(vit, method=method, method_args={"memory": 2} if method == "simmatch" else {}),
        output_dir=str(tmp_path / "run"),
    )
    start = load_file(f"{vit}/model.safetensors")
    for network in (run.progress.inner.model, run.progress.inner.evaluated):
        state = {k.replace(".base_layer", "").removeprefix("timm_model."): v for k, v in network.state_dict().items()}
        assert all(torch.equal(state[k], v) for k, v in start.items())
        assert any(v.abs().max() > 0 for k, v in state.items() if "lora_B" in k)
    saved = load_file(tmp_path / "run" / "model.safetensors")
    moved = {k for k, v in start.items() if not torch.equal(saved[k], v)}
    assert moved == {
        k for k in start if k.endswith("weight") and k.split(".")[-2] in ("qkv", "proj", "fc1", "fc2") and "blocks" in k
    }
    assert set(saved) == {*start, "head.weight", "head.bias"}
    model = get_task("classification").load(tmp_path / "run", device="cpu")
    x = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        theirs = AutoModelForImageClassification.from_pretrained(tmp_path / "run").eval()(x).logits
        assert torch.equal(theirs, model(x).logits)
        torch.testing.assert_close(run.progress.inner.evaluated.eval()(x).logits, theirs, rtol=1e-4, atol=1e-5)
    assert evaluate(str(tmp_path / "run"), "digits")["accuracy"] == run.metrics["accuracy"]


@pytest.mark.parametrize("method", ["fixmatch", pytest.param("comatch", marks=pytest.mark.slow)])
def test_resumed_run_is_bit_identical(method, vit, few_images, tmp_path):
    args = dict(settings(vit, method=method), save_total_limit=9)
    finetune(**args, output_dir=str(tmp_path / "straight"))
    shutil.copytree(tmp_path / "straight", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "step-00000006")
    finetune(**args, output_dir=str(tmp_path / "killed"), resume=True)
    expected, found = tensors(tmp_path / "straight", 6), tensors(tmp_path / "killed", 6)
    assert any("lora_A" in k for k in expected) and expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    with pytest.raises(UserError, match="lora_rank was 2, now 4"):
        finetune(**{**args, "lora_rank": 4}, output_dir=str(tmp_path / "killed"), resume=True)


def test_without_peft_the_extra_is_named(vit, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'hf_lowlabel\[lora\]'"):
        finetune(**settings(vit), output_dir=str(tmp_path / "run"))


@pytest.mark.parametrize("method", ["dino", "lejepa"])
def test_an_encoder_is_adapted_without_labels(vit, tmp_path, method):
    """Every layer moves by a matrix of low rank, all else stays, and what is saved is an ordinary backbone."""
    args = dict(out=64, hidden=32, bottleneck=16) if method == "dino" else {}
    given = dict(dataset="digits", model=vit, method=method, lora_rank=2, method_args=args, batch_size=16, device="cpu")
    given |= dict(image_size=8, learning_rate=1e-2, l2_sp=1e-2, optimizer="adamw", weight_decay=0.0)
    run = pretrain(output_dir=tmp_path / "run", max_steps=4, **given)
    start, saved = (load_file(f"{folder}/model.safetensors") for folder in (vit, tmp_path / "run"))
    assert start.keys() == saved.keys() and run.metrics["moved"] > 0
    for name in ("blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.weight"):
        moved = saved[name] - start[name]
        assert 1 <= torch.linalg.matrix_rank(moved, atol=1e-5) <= 2
    for name in ("cls_token", "pos_embed", "norm.weight", "patch_embed.proj.weight", "blocks.0.attn.qkv.bias"):
        assert torch.equal(saved[name], start[name]), name
    x = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        own = create_backbone(str(tmp_path / "run")).eval().pooled(x)
        torch.testing.assert_close(run.model.cpu().pooled(x), own, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(AutoModel.from_pretrained(tmp_path / "run").eval()(x).pooler_output, own)


def test_adapters_of_random_weights_are_refused_for_pretraining_too():
    with pytest.raises(UserError, match="lora_rank cannot be given with from_scratch"):
        pretrain("digits", "test_vit", "dino", from_scratch=True, lora_rank=2)

"""DINO with iBOT's loss of masked patches: Zhou et al. Eq. 2, the masks, register tokens, and runs."""

import numpy as np
import pytest
import torch

from hf_lowlabel import pretrain
from hf_lowlabel.errors import UserError
from hf_lowlabel.models import create_backbone
from hf_lowlabel.pretraining.dino import DINO
from hf_lowlabel.pretraining.ibot import fill_blocks, masked_entropy, masks, tokens

SMALL = dict(depth=2, embed_dim=24, num_heads=2, patch_size=4)
HEAD = dict(out=32, hidden=24, bottleneck=12)


@pytest.fixture
def registers():
    """A tiny DINOv2 with four register tokens."""
    torch.manual_seed(0)
    return create_backbone("vit_small_patch14_reg4_dinov2", pretrained=False, image_size=16, model_args=SMALL)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_masks_are_blocks_of_the_shares_of_the_paper():
    found = masks((16, 16), range(7, 407), 3)
    share = found.mean(1)
    assert 0.42 < (share == 0).mean() < 0.58 and 0.08 < share[share > 0].min() and share.max() <= 0.5
    assert abs(share[share > 0].mean() - 0.3) < 0.03
    assert np.array_equal(found[5:9], masks((16, 16), range(12, 16), 3))  # each by its own number, on whichever rank
    assert not np.array_equal(found, masks((16, 16), range(7, 407), 4))
    one = np.zeros((8, 8), bool)
    fill_blocks(one, 30, np.random.default_rng(0))
    together = (one[:, 1:] & one[:, :-1]).sum() + (one[1:] & one[:-1]).sum()
    assert 24 <= one.sum() <= 30 and together > 30  # single patches by lot would share 26 edges or so


def test_masked_entropy_is_equation_2():
    rng, mask = np.random.default_rng(0), torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    p, q = softmax(rng.normal(size=(4, 5))), softmax(rng.normal(size=(4, 5)))
    each = -(p * np.log(q)).sum(1)
    expected = (each[:3].mean() + 0 + each[3]) / 3
    found = masked_entropy(torch.from_numpy(p), torch.from_numpy(q).log(), mask)
    assert float(found) == pytest.approx(expected)
    nothing = torch.zeros(3, 4, dtype=torch.bool)
    assert float(masked_entropy(torch.zeros(0, 5), torch.zeros(0, 5), nothing)) == 0


@pytest.mark.parametrize("free", [False, True])
@torch.no_grad()
def test_what_is_masked_is_not_seen_and_registers_are_no_patches(free):
    torch.manual_seed(0)
    name = "vit_small_patch14_reg4_dinov2"
    net = create_backbone(name, pretrained=False, image_size=16, model_args=SMALL, any_size=free).eval()
    x, mask, token = torch.rand(2, 3, 16, 16), torch.zeros(2, 16, dtype=torch.bool), torch.randn(24)
    pooled, patches = tokens(net, x)
    assert patches.shape == (2, 16, 24) and torch.equal(pooled, net.pooled(x))
    torch.testing.assert_close(patches[0].T.unflatten(1, (4, 4)), net.feature_map(x)[0])
    mask[1, 5] = True
    hidden = tokens(net, x, mask, token)
    assert torch.equal(hidden[0][0], pooled[0]) and not torch.allclose(hidden[0][1], pooled[1])
    x[1, :, 4:8, 4:8] = 0  # patch 5
    other = tokens(net, x, mask, token)
    assert torch.equal(other[0], hidden[0]) and torch.equal(other[1], hidden[1])
    assert not net.timm_model.patch_embed._forward_hooks


def test_the_loss_and_the_centers_by_hand(registers):
    torch.manual_seed(0)
    objective = DINO(registers, patch_loss=0.5, local_crops=0, **HEAD).train()
    for network in (objective.head, objective.teacher_head.module):
        for layer in network.mlp[::2]:
            torch.nn.init.normal_(layer.weight, std=0.7)
    objective.patch_center.normal_()
    torch.nn.init.normal_(objective.mask_token)
    views, t, before = [torch.rand(4, 3, 16, 16) for _ in range(2)], 0.05, objective.patch_center.clone()
    objective.updates = 3
    mask = torch.from_numpy(masks((4, 4), [0, 2, 4, 6, 1, 3, 5, 7], 3))
    assert 0 < mask.any(1).sum() < 8
    with torch.no_grad():
        teacher, student = objective.teacher_encoder.module, objective.encoder
        raw = objective.teacher_head(tokens(teacher, torch.cat(views))[1][mask])
        pooled, patches = tokens(student, torch.cat(views), mask, objective.mask_token)
        q = objective.head(patches[mask]).div(0.1).log_softmax(1).double().numpy()
        p = softmax((raw - before).double().numpy() / objective.teacher_temperature(t))
    rows = np.nonzero(mask.numpy())[0]
    each = -(p * q).sum(1)
    expected = sum(each[rows == i].mean() for i in np.unique(rows)) / 8
    out = objective({"views": views}, t)
    assert float(out["patch"]) == pytest.approx(expected, rel=1e-4) and float(out["patch"]) > 0.1
    assert float(out["loss"]) == pytest.approx(float(out["class"]) + 0.5 * expected, rel=1e-4)
    out["loss"].backward()
    assert all(p.grad is not None for p in objective.parameters() if p.requires_grad)
    objective.after_step(t)
    torch.testing.assert_close(objective.patch_center, before.lerp(raw.mean(0), 0.1))
    assert objective.updates == 4 and int(objective.get_extra_state()) == 4


@pytest.mark.parametrize("processes, parts", [(2, 1), (1, 2), (2, 2)])
def test_an_image_is_masked_alike_on_however_many_processes(processes, parts, registers, monkeypatch):
    """And in however many micro-batches."""
    objective, seen = DINO(registers, patch_loss=1.0, **HEAD).train(), []
    monkeypatch.setattr("hf_lowlabel.pretraining.dino.all_mean", lambda x: x)

    def spy(grid, numbers, step):
        seen.append(masks(grid, numbers, step).reshape(2, len(numbers) // 2, -1))  # of each view
        return seen[-1].reshape(len(numbers), -1)

    monkeypatch.setattr("hf_lowlabel.pretraining.dino.masks", spy)

    def of_step(processes, parts):
        seen.clear()
        found = {}
        monkeypatch.setattr("hf_lowlabel.pretraining.dino.world", lambda: processes)
        for rank in range(processes):
            monkeypatch.setattr("hf_lowlabel.pretraining.dino.rank", lambda rank=rank: rank)
            objective.take()
            for part in range(parts):
                objective({"views": [torch.rand(8 // processes // parts, 3, 16, 16)] * 2}, 0.5)
                found[part, rank] = seen[-1]
        objective.take()
        return np.concatenate([found[key] for key in sorted(found)], 1)

    whole = of_step(1, 1)
    assert whole.any() and not np.array_equal(whole[0], whole[1])
    assert np.array_equal(of_step(processes, parts), whole)


def test_whole_views_leave_the_center_of_patches_alone(registers, monkeypatch):
    objective = DINO(registers, patch_loss=1.0, **HEAD).train()
    monkeypatch.setattr(
        "hf_lowlabel.pretraining.dino.masks",
        lambda grid, numbers, *_: np.zeros((len(numbers), grid[0] * grid[1]), bool),
    )
    out = objective({"views": [torch.rand(2, 3, 16, 16)] * 2}, 0.5)
    assert float(out["patch"]) == 0 and out["loss"].isfinite()
    out["loss"].backward()
    objective.after_step(0.5)
    assert torch.equal(objective.patch_center, torch.zeros(32))


@pytest.mark.parametrize("lora", [None, 2])
def test_a_run_goes_on_from_weights_with_registers(registers, lora, tmp_path):
    registers.save_pretrained(tmp_path / "start")
    given = dict(dataset="digits", model=str(tmp_path / "start"), method="dino", batch_size=16, device="cpu")
    given |= dict(image_size=16, max_steps=3, lora_rank=lora, method_args=dict(HEAD, patch_loss=1.0))
    run = pretrain(output_dir=tmp_path / "run", **given)
    assert run.metrics["moved"] > 0
    again = create_backbone(str(tmp_path / "run"))
    assert again.timm_model.num_prefix_tokens == 5 and again.load_report.missing == []
    same = torch.equal(again.timm_model.reg_token, registers.timm_model.reg_token)
    assert same if lora else not same


def test_a_network_without_patches_is_refused(tmp_path):
    with pytest.raises(UserError, match="masks the patches of a vision transformer, and this is a ResNet"):
        DINO(create_backbone("test_resnet", pretrained=False), patch_loss=1.0, **HEAD)

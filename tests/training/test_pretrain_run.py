"""A run of target pretraining, for images of one class and for segmentation, and what finetuning makes of it."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hf_lowlabel import finetune, load_source, make_split, pretrain
from hf_lowlabel.arguments import Config
from hf_lowlabel.models import LowLabelBackbone, create_backbone
from hf_lowlabel.settings import resolve
from hf_lowlabel.training import pretrain as pretrain_run

from .conftest import SEGMENT, SMALL


@pytest.mark.parametrize("method, told", [("simclr", True), ("vicreg", True), ("moco", False), ("byol", False)])
def test_what_accumulation_makes_of_comparisons_is_told(method, told, caplog):
    """Those with a queue compare with it, and as much in parts as in one."""
    encoder = create_backbone("test_resnet", pretrained=False, image_size=32)
    given = dict(dataset="digits", method=method, batch_size=16, gradient_accumulation_steps=4, l2_sp=0.1)
    caplog.set_level("INFO", "hf_lowlabel")
    pretrain_run.make_objective(resolve(Config.from_flat("pretrain", given)), encoder, 50)
    assert ("compared within each micro-batch alone, 4 at a time" in caplog.text) == told


def test_target_pretraining_then_finetuning(photos, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_lowlabel"), "handlers", [caplog.handler])
    split = make_split(load_source(str(photos / "labeled")), 8, test_fraction=0.25)
    split.save(tmp_path / "split.json")
    base = {k: v for k, v in SMALL.items() if k not in ("model", "from_scratch", "unlabeled_ratio")}
    common = dict(base, dataset=str(photos / "labeled"), split=str(tmp_path / "split.json"))
    pre = pretrain(
        **common, model="cnn6_16", from_scratch=True, method_args=dict(hidden=16), output_dir=str(tmp_path / "pre")
    )
    assert len(pre.recorder.caches[0]) == 24 - 6  # the test images stay unseen
    assert 0 < pre.metrics["feature_std"] and 0 <= pre.metrics["knn_accuracy"] <= 1
    assert pre.progress.optimizer.param_groups[0]["base_lr"] == pytest.approx(
        pre.config.training.learning_rate * 4 / 256
    )  # lr is of 256 images a step
    assert (
        "moved" not in pre.metrics and "hardly changed" not in caplog.text
    )  # from random weights there is nowhere to stay
    slow = dict(common, learning_rate=0.1)
    second = pretrain(
        **slow, model=str(tmp_path / "pre"), method_args=dict(hidden=16), output_dir=str(tmp_path / "pre2")
    )
    assert (
        max(r.get("distance", 0) for r in second.progress.history) > 0
    )  # the pull to the start is on for weights that were given
    assert second.progress.inner.weight == pytest.approx(
        0.01 / 4
    )  # lambda stands beside a sum over the 4 images of a step
    start, end = (load_file(tmp_path / name / "model.safetensors") for name in ("pre", "pre2"))
    names = [k.removeprefix("timm_model.") for k, _ in second.model.named_parameters()]
    way, length = (
        sum(x.square().sum() for x in side) for side in ([end[k] - start[k] for k in names], [start[k] for k in names])
    )
    assert (
        second.metrics["moved"] == pytest.approx(float((way / length).sqrt()), rel=1e-4)
        and 0 < second.metrics["moved"] < 0.003
    )
    assert (
        "the images have hardly changed the backbone. Give more --epochs, a higher --learning-rate (0.1)" in caplog.text
    )
    assert "pretraining has hardly changed it" in (tmp_path / "pre2" / "README.md").read_text()
    fine = finetune(
        **common, model=str(tmp_path / "pre"), output_dir=str(tmp_path / "fine"), learning_rate=0.0, weight_decay=0.0
    )
    a, b = load_file(tmp_path / "pre" / "model.safetensors"), load_file(tmp_path / "fine" / "model.safetensors")
    assert all(torch.equal(a[k], b[k]) for k in a if "running" not in k and "num_batches" not in k)
    lineage = json.loads((fine.folder / "run.json").read_text())["lineage"]
    assert [s["what"] for s in lineage] == ["random weights", "target pretraining", "finetuning"]


def test_labels_that_are_not_known_do_not_count_in_the_nearest_neighbours(monkeypatch):
    """Twelve labeled images of two clusters, each among unlabeled ones that are nearer than its kind."""
    labels = torch.tensor(([0] + [-1] * 4) * 6 + ([1] + [-1] * 4) * 6)
    angle = torch.tensor([0.0] * 30 + [1.5] * 30) + torch.arange(60) * 1e-3
    points = torch.stack([angle.cos(), angle.sin()], 1)

    class Pool:
        """Sixty images, all of which can be read."""

        def __len__(self):
            return 60

        def shown(self, at):
            return at

    monkeypatch.setattr(pretrain_run, "eval_view", lambda encoder: None)
    monkeypatch.setattr(pretrain_run, "features_of", lambda net, pool, view, at: points[at])
    assert pretrain_run.collapse_monitor(None, Pool(), labels)["knn_accuracy"] == 1
    labels[5] = labels[10] = -1  # eleven, ten: still enough; below that nothing is said
    assert "knn_accuracy" in pretrain_run.collapse_monitor(None, Pool(), labels)
    labels[15] = -1
    assert "knn_accuracy" not in pretrain_run.collapse_monitor(None, Pool(), labels)


def test_encoder_from_target_pretraining(masked, tmp_path, monkeypatch):
    common = dict(task="segmentation", dataset=str(masked), image_size=16, batch_size=4, max_steps=2)
    frozen, freeze = [], LowLabelBackbone.freeze_beyond_map
    monkeypatch.setattr(LowLabelBackbone, "freeze_beyond_map", lambda self: frozen.append(self) or freeze(self))
    pre = pretrain(
        **common,
        model="cnn6_16",
        from_scratch=True,
        method="pixpro",
        method_args=dict(hidden=16, out=8),
        output_dir=str(tmp_path / "pre"),
    )
    assert frozen == [pre.model]  # several processes would wait for the gradients of layers behind the map
    assert len(pre.recorder.caches[0]) == 18  # images without masks too, and no mask among the images
    still = dict(
        SEGMENT,
        model=str(tmp_path / "pre"),
        from_scratch=False,
        method="supervised",
        optimizer="sgd",
        learning_rate=0.0,
    )
    fine = finetune(**still, dataset=str(masked), output_dir=str(tmp_path / "fine"))
    a, b = load_file(tmp_path / "pre" / "model.safetensors"), load_file(tmp_path / "fine" / "model.safetensors")
    encoder = {k.removeprefix("network.encoder.model."): v for k, v in b.items() if k.startswith("network.encoder.")}
    same = [k for k in a if "running" not in k and "num_batches" not in k and k.replace("timm_model.", "") in encoder]
    assert len(same) > 10 and all(torch.equal(a[k], encoder[k.replace("timm_model.", "")]) for k in same)
    lineage = json.loads((fine.folder / "run.json").read_text())["lineage"]
    assert [s["what"] for s in lineage] == ["random weights", "target pretraining", "finetuning"]


@pytest.mark.parametrize("width", [32, 22, 17])  # 2:1, 4:3 and nearly square
def test_target_pretraining_sees_all_of_wide_images(tmp_path, width):
    rng, folder = np.random.default_rng(0), tmp_path / "wide"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (16, width, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    run = pretrain(
        task="segmentation",
        dataset=str(folder),
        image_size=16,
        batch_size=4,
        epochs=1,
        model="cnn6_16",
        from_scratch=True,
        method="pixpro",
        method_args=dict(hidden=16, out=8),
        output_dir=str(tmp_path / "run"),
    )
    pool = run.recorder.caches[0]
    starts = [0, width - 16] if width > 17 else [0]
    assert len(pool) == 4 * len(starts)
    for row, i in enumerate(np.repeat(range(4), len(starts))):
        whole = torch.from_numpy(np.array(Image.open(folder / f"{i}.png"))).permute(2, 0, 1)
        assert torch.equal(pool.images[row], whole[:, :, starts[row % len(starts)] :][:, :, :16])
    assert run.config.training.max_steps == 1  # an epoch is as many views as there are images
    assert json.loads((run.folder / "run.json").read_text())["data"]["images"] == 4

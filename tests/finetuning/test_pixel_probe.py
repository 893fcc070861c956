"""The linear classifier of pixels: what it minimises, where its features are, and a run that leaves a model."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSemanticSegmentation

from hf_lowlabel import evaluate, finetune
from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation.segmentation import Normalise
from hf_lowlabel.finetuning import pixel_probe
from hf_lowlabel.finetuning.pixel_probe import PixelKNN, PixelProbe, Softmax
from hf_lowlabel.finetuning.temperature import temperature
from hf_lowlabel.models import create_backbone
from hf_lowlabel.models.segmentation import create_segmenter
from hf_lowlabel.models.segmenter import LowLabelForSemanticSegmentation
from hf_lowlabel.models.segmenter_parts import Neighbours
from hf_lowlabel.tasks import cross_validation
from hf_lowlabel.tasks.data_classes import Examples
from hf_lowlabel.tasks.pixels import chosen_pixels, fit_probe, sampled
from tests.quick import few_shapes

SEEN = dict(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def test_the_layer_minimises_the_weighted_cross_entropy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)).astype(np.float32) * [3, 1, 1, 1, 0.1, 0.01]
    y = (x[:, :3] + rng.normal(size=(200, 3))).argmax(1)
    w = rng.uniform(0.5, 1.5, 200)
    fit = Softmax(x.astype(np.float32), y, w / w.mean(), 500)
    V, c = fit(np.arange(200), 0.05)
    weight, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (fit.on_features(V), c))
    logits = torch.from_numpy(x) @ weight.T + bias
    losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y), reduction="none")
    loss = (losses * torch.from_numpy(w / w.sum())).sum() + 0.05 / 2 * weight.square().sum()
    loss.backward()
    assert float(weight.grad.abs().max()) < 3e-3 and float(bias.grad.abs().max()) < 3e-3
    zero = torch.nn.functional.cross_entropy(torch.zeros(200, 3), torch.from_numpy(y))
    assert float(loss) < 0.7 * float(zero)


def test_small_classes_are_seen_and_weights_undo_it():
    mask = np.zeros(10_000, np.uint8)
    mask[:30], mask[30:1000] = 1, 255
    at, weights = chosen_pixels(mask, 400, np.random.default_rng(0))
    few = mask[at] == 1
    assert few.sum() == 30 and not (mask[at] == 255).any()  # of 101 that half of all pixels would be
    np.testing.assert_allclose(weights[few].sum() / weights.sum(), 30 / 9030, rtol=1e-6)
    assert [len(v) for v in chosen_pixels(np.full(9, 255, np.uint8), 4, np.random.default_rng(0))] == [0, 0]


def pixels_of(shows: list[list[int]], each: int = 60, width: int = 8, noise: float = 0.7):
    """Features, classes and masks of pixels: mask i shows the classes shows[i], `each` pixels of every one."""
    rng = np.random.default_rng(0)
    masks = np.repeat(np.arange(len(shows)), [each * len(classes) for classes in shows])
    y = np.concatenate([np.repeat(classes, each) for classes in shows])
    return (np.eye(width)[y] + noise * rng.normal(size=(len(y), width))).astype(np.float32), y, masks


def chosen(x, y, masks, weights=None, **settings):
    fit = Softmax(x, y, np.ones(len(y)) if weights is None else weights, 100)
    return PixelProbe(**settings).chosen(fit, masks)


def test_a_class_that_the_other_masks_do_not_show_says_nothing_of_confidence():
    """Nobody can know it when its only mask is left out; the rest are judged as if it were not there."""
    shared = [[0, 1]] * 8
    l2, t = chosen(*pixels_of([*shared, [0, 1, 2]]))
    assert (l2, t) == pytest.approx(chosen(*pixels_of([*shared, [0, 1]])), rel=0.3)
    by_order = chosen(*pixels_of([[0, 1 + i % 4] for i in range(16)]))[1]  # every fourth mask shows the same class
    assert by_order == pytest.approx(1, rel=0.35)
    assert chosen(*pixels_of([[0], [1]])) == (0.1, 1.0) == chosen(*pixels_of([[0, 1]]))  # nothing can be left out


def test_every_mask_has_pixels_among_those_that_choose(monkeypatch):
    """One that is large does not keep the others out."""
    monkeypatch.setattr("hf_lowlabel.finetuning.pixel_probe.MOST", 40)
    x, y, masks = pixels_of([[0, 1]] * 4)
    large = np.r_[np.repeat(np.flatnonzero(masks == 0), 100), np.flatnonzero(masks > 0)[::30]]
    asked, real = [], Softmax.logits

    def logits(self, rows, l2, out):
        asked.extend(masks[large][out])
        return real(self, rows, l2, out)

    monkeypatch.setattr(Softmax, "logits", logits)
    chosen(x[large], y[large], masks[large], l2=0.1)
    assert set(asked) == {0, 1, 2, 3} and len(asked) == 40


def test_the_temperature_is_that_of_weighted_pixels():
    """Pixels of a class drawn twice as often, at half the weight, say what they did."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    z = rng.normal(size=(300, 2)) + np.eye(2)[y] * [0.5, 2]  # class 1 is easy
    often = np.r_[np.arange(300), np.flatnonzero(y == 1)]
    weights = np.where(y[often] == 1, 0.5, 1.0)
    assert temperature(z[often], y[often], weights) == temperature(z, y) != temperature(z[often], y[often])
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_probe, "temperature", lambda z, y, weights: seen.append(weights) or 1.0)
        x, y, masks = pixels_of([[0, 1]] * 4)
        chosen(x, y, masks, np.where(y == 0, 1.5, 0.5), l2=0.1)
    assert sorted(seen[0]) == [0.5] * 240 + [1.5] * 240


class Masks:
    """A cache of noise of two sizes in one frame, none a multiple of a stride, with a bright square that is class 1."""

    def __init__(self, count: int = 6, classes: int = 2):
        rng = np.random.default_rng(0)
        self.sizes = torch.tensor([[50, 61] if i % 2 else [61, 47] for i in range(count)])
        self.packed = torch.from_numpy(rng.integers(0, 120, (count, 4, 61, 61), dtype=np.uint8))
        self.packed[:, 3] = 0
        self.ids, self.file_of = [f"{i}.png" for i in range(count)], {}
        for i in range(count):
            y, x = rng.integers(0, 25, 2)
            self.packed[i, :3, y : y + 20, x : x + 20] = 240
            self.packed[i, 3, y : y + 20, x : x + 20] = classes - 1

    def take(self, rows):
        return self.packed[rows]

    def stream(self, batches):
        return (self.packed[rows] for rows in batches)

    def examples(self):
        return Examples(self, torch.arange(len(self.packed)), None)


@pytest.mark.parametrize("encoder", ["test_resnet", "test_vit"])
@torch.no_grad()
def test_what_was_fitted_is_what_the_model_says(encoder, all_pixels):
    """Features at the pixels times the layer are the model's logits there, on images of any size, at any depth."""
    torch.manual_seed(0)
    model = create_segmenter(encoder, 2, architecture="linear", pretrained=False).eval()
    cache = Masks()
    fit_probe(PixelProbe(l2=0.01, pixels=3000), model, cache.examples(), 2, **SEEN)
    widths = model.network.encoder.out_channels
    normalise = Normalise(**SEEN)
    x, y, w, of = sampled(lambda image: model.features(normalise(image)), model.divisor, cache.examples(), 3000)
    loud = [float(part.sum()) for part in x.var(0, unbiased=False).split(widths)]
    np.testing.assert_allclose(loud, 1.0, rtol=1e-3)  # each depth as a whole
    conv = model.network.segmentation_head[0]
    said = x @ conv.weight[:, :, 0, 0].T + conv.bias
    right = 0.0
    for i, (h, width) in enumerate(cache.sizes.tolist()):
        image = (cache.packed[i : i + 1, :3, :h, :width].float() / 255 - 0.5) / 0.25
        logits = model(image).logits[0].flatten(1).T
        at, _ = chosen_pixels(cache.packed[i, 3, :h, :width].numpy().ravel(), 1, np.random.default_rng(0))
        mine = said[torch.from_numpy(of == i)]
        gaps = (torch.cdist(mine.double(), logits.double()).min(1).values).max()
        assert float(gaps) < 1e-3, i
        right += float((logits.argmax(1) == cache.packed[i, 3, :h, :width].flatten()).float().mean()) / len(cache.sizes)
    if encoder == "test_resnet":
        assert right > 0.9


@torch.no_grad()
def test_neighbours_of_pixels_find_what_is_bright():
    torch.manual_seed(0)
    model, cache = create_segmenter("test_resnet", 2, architecture="knn", pretrained=False).eval(), Masks()
    fit_probe(PixelKNN(stored=1500), model, cache.examples(), 2, **SEEN)
    kept = model.config.architecture_args
    assert kept["k"] in (5, 20, 50) and kept["stored"] == len(model.network.segmentation_head[0].weight) <= 1500
    right = 0.0
    for i, (h, width) in enumerate(cache.sizes.tolist()):
        image = (cache.packed[i : i + 1, :3, :h, :width].float() / 255 - 0.5) / 0.25
        right += float((model(image).logits[0].argmax(0) == cache.packed[i, 3, :h, :width]).float().mean()) / 6
    assert right > 0.9


def test_masks_of_one_class_are_refused():
    model = create_segmenter("test_resnet", 2, architecture="linear", pretrained=False)
    with pytest.raises(UserError, match="All labeled pixels are of one class"):
        fit_probe(PixelProbe(), model, Masks(classes=1).examples(), 2, **SEEN)
    with pytest.raises(UserError, match="the segmenter is of architecture 'unet'"):
        unet = create_segmenter("test_resnet", 2, architecture="unet", pretrained=False)
        fit_probe(PixelProbe(), unet, Masks().examples(), 2, **SEEN)


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(architecture="unet"), "--architecture unet means nothing to it"),
        (dict(lora_rank=4), "lora_rank is a setting of"),
        (dict(freeze_encoder=True), "freeze_encoder means nothing to probe"),
        (dict(method_args=dict(pixels=1)), "pixels of probe is 1. It must be at least 2"),
        (dict(method="knn", architecture="linear"), "--architecture linear means nothing to it"),
        (dict(method="knn", method_args=dict(k=0)), "k of knn is 0. It must be at least 1"),
        (dict(method="label-spreading"), "label-spreading is a method for classification"),
        (dict(method="cutmix", architecture="knn"), "The architecture knn is what --method knn fits, not cutmix"),
    ],
)
def test_what_means_nothing_is_refused(given, says, tmp_path):
    with pytest.raises(UserError, match=says):
        finetune(
            **{"task": "segmentation", "dataset": "shapes", "num_labels": 4, "method": "probe", "model": "test_resnet"}
            | {"output_dir": str(tmp_path / "run"), "from_scratch": True}
            | given
        )
    assert not (tmp_path / "run" / "config.json").exists()


@torch.no_grad()
def test_the_nearest_pixels_vote():
    """The logits of a patch are those of its neighbours by hand, in parts, too; a pixel that is stored finds itself."""
    torch.manual_seed(0)
    layer = Neighbours(8, 3, 50, 5, 0.1)
    bank, classes = torch.nn.functional.normalize(torch.randn(50, 8), dim=1), torch.randint(0, 3, (50,))
    layer.weight.copy_(bank[:, :, None, None])
    layer.classes.copy_(classes)
    layer.counts.copy_(torch.rand(50) + 0.5)
    x = torch.randn(2, 8, 3, 4)
    got = layer(x)
    at = torch.nn.functional.normalize(x[1, :, 2, 3], dim=0)
    near = (bank @ at).topk(5)
    w = layer.counts[near.indices] * (near.values / 0.1).exp()
    expected = torch.stack([w[classes[near.indices] == c].sum() for c in range(3)]) / w.sum()
    torch.testing.assert_close(got[1, :, 2, 3].exp(), expected.clamp_min(1e-4), atol=1e-5, rtol=1e-5)
    layer.CHUNK = 100
    assert torch.allclose(layer(x), got, atol=1e-6)
    one = Neighbours(8, 3, 50, 1, 0.1)
    one.load_state_dict(layer.state_dict())
    assert torch.equal(one(bank[:, :, None, None])[:, :, 0, 0].argmax(1), classes)


@pytest.mark.parametrize("method", [dict(method="probe", pixels=3000), dict(method="knn", stored=1000)])
@torch.no_grad()
def test_a_run_leaves_a_segmenter_that_anyone_loads(method, tmp_path, monkeypatch):
    few_shapes(monkeypatch.setattr)
    name, args = method["method"], {k: v for k, v in method.items() if k != "method"}
    torch.manual_seed(0)
    create_backbone("test_resnet", pretrained=False).save_pretrained(tmp_path / "encoder")
    run = finetune(
        task="segmentation",
        dataset="shapes",
        num_labels=6,
        model=str(tmp_path / "encoder"),
        method=name,
        method_args=args,
        image_size=64,
        device="cpu",
        output_dir=str(tmp_path / "run"),
    )
    assert evaluate(str(tmp_path / "run"), "shapes")["miou"] == pytest.approx(run.metrics["miou"])
    x = torch.rand(1, 3, 64, 64)
    ours = LowLabelForSemanticSegmentation.from_pretrained(tmp_path / "run").eval()
    theirs = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "run", trust_remote_code=True).eval()
    assert torch.equal(ours(x).logits, theirs(x).logits) and torch.equal(ours(x).logits, run.model(x).logits)
    assert "6 images with masks" in (tmp_path / "run" / "README.md").read_text()


def test_images_of_unlike_sizes_are_judged_on_the_same_maps(monkeypatch):
    """On those that the smallest image has enough cells of; each by the masks of the others alone."""
    monkeypatch.setattr(cross_validation, "CELLS", 4)
    cache = Masks(4)
    cache.packed = torch.nn.functional.pad(cache.packed, (0, 99, 0, 99))
    cache.packed[0] = torch.nn.functional.interpolate(cache.packed[:1, :, :61, :47], size=160)[0]  # maps of 5 x 5 cells
    cache.sizes[0] = torch.tensor([160, 160])
    torch.manual_seed(0)
    model = create_segmenter("test_resnet", 2, architecture="unet", pretrained=False)
    found = {i: (p, mask) for i, p, mask in cross_validation.guesses_of_masks(model, cache.examples(), 2)}
    for i, (p, mask) in found.items():
        assert p.shape[1:] == mask.shape == tuple(cache.sizes[i]) and np.allclose(p.sum(0), 1, atol=1e-5)
    right = np.mean([(p.argmax(0) == mask).mean() for p, mask in found.values()])
    assert len(found) == 4 and right > 0.85
    before = found[1][0].argmax(0)
    cache.packed[1, 3] = 1 - cache.packed[1, 3]  # its own mask says nothing of what it is taken for
    again = {i: p for i, p, _ in cross_validation.guesses_of_masks(model, cache.examples(), 2)}
    assert (again[1].argmax(0) == before).mean() > 0.8


def test_one_mask_with_a_class_judges_none():
    cache = Masks(2)
    cache.packed[1, 3] = 255
    model = create_segmenter("test_resnet", 2, architecture="unet", pretrained=False)
    with pytest.raises(UserError, match="One mask alone has a pixel of a class"):
        next(cross_validation.guesses_of_masks(model, cache.examples(), 2))

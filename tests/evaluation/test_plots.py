"""Pictures: what is drawn, that it fits, and that no global state of matplotlib is touched."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hf_lowlabel.evaluation import classification, panels as panels_of, plots, sheets
from hf_lowlabel.evaluation.overlays import palette

pytestmark = pytest.mark.pictures


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved, in order."""
    kept = []
    save = plots._save
    for module in (plots, sheets):
        monkeypatch.setattr(module, "_save", lambda fig, *args, **more: (kept.append(fig), save(fig, *args, **more))[1])
    return kept


def result(k, n=300, names=None):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), targets] += 3
    names = names or [f"class {i}" for i in range(k)]
    probs = classification.softmax(logits)
    return classification.classification_scores(probs, targets, names), probs, targets


def log(steps=200):
    for s in range(steps):
        row = {
            "step": s,
            "loss": 2 / (s + 1),
            "supervised": 1 / (s + 1),
            "mask_ratio": s / steps,
            "learning_rate": 0.03,
            "seconds": 0.1 * s,
        }
        yield row
        if s % 50 == 0:
            yield {"step": s, "accuracy": s / steps, "knn_accuracy": 0.5, "feature_std": 0.9}


def test_curves_have_a_panel_for_each_kind_of_number(tmp_path, figures):
    rows = [*log(), {"step": 200, "loss": float("nan"), "note": "text", "learning_rate": True}]
    path = plots.curves(rows, tmp_path / "curves.png", title="digits, 40 labels for $5")
    panels = {ax.get_title(loc="left"): ax for ax in figures[0].axes}
    assert list(panels) == [panels_of.LOSS, panels_of.PSEUDO, panels_of.ACCURACY, panels_of.SPREAD, panels_of.RATE]
    named = {title: {text.get_text() for text in ax.get_legend().get_texts()} for title, ax in panels.items()}
    assert named[panels_of.LOSS] == {"loss", "supervised"} and named[panels_of.ACCURACY] == {"accuracy", "knn accuracy"}
    accuracy = panels[panels_of.ACCURACY].lines[0]
    np.testing.assert_allclose(accuracy.get_xdata(), [0, 50, 100, 150])
    np.testing.assert_allclose(accuracy.get_ydata(), [0, 25, 50, 75])  # per cent
    check(path)


def test_numbers_of_another_scale_stay_out_of_the_loss_panel(tmp_path, figures):
    rows = [{"step": s, "loss": 1.0, "self": 0.9, "pairs": 400.0, "valid": 0.5, "distance": 3.0} for s in (10, 20)]
    plots.curves(rows, tmp_path / "curves.png")
    loss, other = figures[0].axes
    assert [line.get_label() for line in loss.lines] == ["loss", "self"] and loss.get_ylim()[1] < 2
    assert sorted(line.get_label() for line in other.lines) == ["distance", "pairs", "valid"]
    assert other.get_yscale() == "log" and loss.get_xlim() == other.get_xlim()


def test_an_empty_log_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="log.jsonl"):
        plots.curves([{"step": 3}], tmp_path / "curves.png")


def test_running_mean_leaves_gaps_out():
    y = np.array([1.0, 3.0, np.nan, 5.0, 7.0])
    np.testing.assert_allclose(plots._running_mean(y, 3), [2, 2, 4, 6, 6])


@pytest.mark.parametrize("k", [2, 12, 45, 200, 300])
def test_confusion_is_legible(tmp_path, figures, k):
    """No two tick labels of an axis overlap, from 2 classes to hundreds, with names that are long and hold a $."""
    names = [f"a class name that is rather long ${i}$" if i % 3 == 0 else f"n{i}" for i in range(k)]
    m = result(k, 4 * k, names)[0]
    check(plots.confusion(m, tmp_path / "confusion.png"))
    fig = figures[0]
    fig.draw_without_rendering()
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            boxes = [t.get_window_extent() for t in axis.get_ticklabels() if t.get_text() and t.get_visible()]
            side = ("x0", "x1") if axis is ax.xaxis else ("y0", "y1")
            spans = sorted((getattr(b, side[0]), getattr(b, side[1])) for b in boxes)
            assert all(a[1] <= b[0] + 1 for a, b in zip(spans, spans[1:], strict=False)), (k, axis)
    if k == 12:
        shown = {(int(t.get_position()[1]), int(t.get_position()[0])): int(t.get_text()) for t in fig.axes[0].texts}
        assert shown == {(a, b): n for a, row in enumerate(m["confusion"]) for b, n in enumerate(row) if n}


def test_reliability_draws_the_bins(tmp_path, figures):
    m = result(5)[0]
    check(plots.reliability(m, tmp_path / "reliability.png"))
    heights = [bar.get_height() for bar in figures[0].axes[0].patches]
    assert heights == pytest.approx([100 * a for a in m["reliability"]["accuracy"] if a is not None])
    bars = figures[0].axes[0].containers[-1].lines[2][0].get_segments()  # one interval a bin, within 0 to 100 %
    assert len(bars) == len(heights) and all(0 <= bar[0][1] <= bar[1][1] <= 100 for bar in bars)
    legends = [*figures[0].legends, *filter(None, [figures[0].axes[0].get_legend()])]
    assert len(legends) == 1 and not legends[0].get_window_extent().overlaps(figures[0].axes[0].get_window_extent())


def test_the_interval_of_a_few_images_is_wide_and_of_many_narrow():
    """Wilson's at 80 %, by its table: 0 of 5, 5 of 10, 500 of 1000."""
    low, high = classification.wilson(np.array([0, 0.5, 0.5]), np.array([5, 10, 1000]))
    assert low == pytest.approx([0, 0.3122, 0.4798], abs=2e-3) and high == pytest.approx(
        [0.2473, 0.6878, 0.5202], abs=2e-3
    )


def test_a_score_has_its_title_and_a_line_that_hardly_moves_is_flat(tmp_path, figures):
    rows = [{"step": s, "test_miou": 0.44753 + s * 1e-7} for s in range(1, 9)]
    plots.curves(rows, tmp_path / "curves.png", scores={"miou": "Mean IoU"})
    (ax,) = figures[0].axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["test mean IoU"]
    low, high = ax.get_ylim()
    assert high - low >= 2 and low < 44.753 < high


def test_contact_sheet_frames_mistakes(tmp_path, figures):
    _, probs, targets = result(4, 100)
    rng, asked = np.random.default_rng(0), []

    def image(i):
        asked.append(i)
        return rng.integers(0, 255, [(90, 40, 3), (8, 8, 3), (320, 320, 3)][i % 3], np.uint8)

    check(sheets.predictions(image, probs, targets, list("abcd"), tmp_path / "predictions.png"), plots.LARGEST_SHEET)
    chosen = sheets.choose_examples(probs, targets)
    (sheet,) = figures[0].axes
    words = [text.get_text() for text in sheet.texts if "sure" in text.get_text()]
    assert asked == chosen and len(set(chosen)) == len(chosen) == len(sheet.images) <= 24
    for i, said, frame, shown in zip(chosen, words, sheet.patches, sheet.images, strict=True):
        wrong = probs[i].argmax() != targets[i]
        assert (frame.get_linewidth() > 1) == wrong
        assert ("✗" in said) == wrong == (f"true: {'abcd'[targets[i]]}" in said)
        assert f"{100 * probs[i].max():.0f} %" in said
        left, right, foot, top = shown.get_extent()
        assert np.isclose((right - left) / (top - foot), [40 / 90, 1, 1][i % 3], atol=0.01)  # nothing is squashed
        assert frame.get_bbox().extents == pytest.approx([left, foot, right, top])
    others = np.setdiff1d(np.flatnonzero(probs.argmax(1) != targets), chosen[:18])
    assert chosen[18:] == sorted(others.tolist(), key=lambda i: -probs[i].max())[:6]


def test_contact_sheet_of_few_images_and_of_unlabeled_ones(tmp_path):
    _, probs, targets = result(4, 3)
    image = np.zeros((20, 20, 3), np.uint8)
    check(sheets.predictions(lambda i: image, probs, targets, list("abcd"), tmp_path / "few.png"))
    unknown = np.full(3, -1)
    assert len(sheets.choose_examples(result(4, 30)[1], np.full(30, -1))) == 18  # nothing is a mistake
    check(sheets.predictions(lambda i: image, probs, unknown, list("abcd"), tmp_path / "unknown.png"))
    with pytest.raises(ValueError, match="at least one"):
        sheets.predictions(lambda i: image, probs[:0], targets[:0], list("abcd"), tmp_path / "none.png")


def test_a_noisy_picture_stays_below_the_limit_and_replaces_the_old_one(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (800, 1000, 3), np.uint8)
    fig = Figure(figsize=(10, 8))
    fig.figimage(noise)
    (tmp_path / "a.png").write_bytes(b"old")
    check(plots._save(fig, tmp_path / "a.png", (100,)))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_classes_keep_their_colors_where_a_sheet_is_cut_to_few(tmp_path):
    """The picture beside the legend takes most of the 256 colours, and no two classes may share one."""
    rng, fig = np.random.default_rng(0), Figure(figsize=(10, 8))
    photo = np.array(Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).resize((1000, 800)))
    photo[::7] += 3  # too much for LARGEST_FILE as it is
    colors = palette([f"class {k}" for k in range(7)])[:7]
    for k, color in enumerate(colors):
        photo[140:165, 100 * k : 100 * k + 30] = color  # as large as in a legend
    fig.figimage(photo)
    path = plots._save(fig, tmp_path / "a.png", (100,))
    with Image.open(path) as picture:
        seen, side = np.array(picture.convert("RGB")).astype(int), picture.size[0] / 1000
        assert picture.mode == "P"  # it was cut
    found = [seen[int(150 * side) + 8, int((100 * k + 15) * side)] for k in range(7)]
    assert max(np.abs(a - b).max() for a, b in zip(found, colors.astype(int))) < 12


def test_pyplot_is_never_imported():
    code = "import sys; from hf_lowlabel.evaluation import plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def check(path, largest=plots.LARGEST_FILE):
    assert path.stat().st_size <= largest
    with Image.open(path) as picture:
        assert picture.format == "PNG" and 150 < min(picture.size) and max(picture.size) < 1600


def test_a_sheet_of_photos_keeps_all_colors(tmp_path):
    """256 colours of many photos give skies and faces bands."""
    photo = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    probs = np.full((18, 2), 0.5)
    path = sheets.predictions(lambda i: photo, probs, np.zeros(18, int), ["ant", "bee"], tmp_path / "predictions.png")
    with Image.open(path) as picture:
        assert picture.mode.startswith("RGB") and plots.LARGEST_FILE < path.stat().st_size <= plots.LARGEST_SHEET

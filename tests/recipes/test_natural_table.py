"""The page of the benchmark on natural images: differences on the same seeds, and what is written by hand stays."""

import runpy
from pathlib import Path

import pytest

from hf_lowlabel.errors import UserError

TABLE = Path(__file__).resolve().parents[2] / "recipes" / "benchmarks" / "natural_table.py"


def line(row: str, seed: int, accuracy: float, baseline: str | None = None) -> dict:
    made = dict(block="one", row=row, seed=seed, accuracy=accuracy, baseline=baseline, cpu_seconds=10.0)
    return dict(made, hardware={"cpu": "some"}, versions={"torch": "2"})


def test_differences_are_those_of_the_same_seeds(tmp_path):
    page = runpy.run_path(str(TABLE))["page"]
    rows = [line("labels", 0, 0.5), line("labels", 1, 0.7), line("method", 1, 0.8, "labels")]
    text = page(rows, {"one": dict(max_steps=5), "not run": {}}, {}, str(tmp_path / "page.md"))
    assert "| labels | 60.0 ± 14.1 | – | – | 2 | 10 |" in text
    assert "| method | 80.0 | +10.0 (labels) | +10.0 | 1 | 10 |" in text
    assert "Every row: max_steps 5." in text and "## not run" not in text and "cpu some" in text

    file = tmp_path / "page.md"
    file.write_text(file.read_text() + "\nby hand\n")
    page(rows + [line("method", 0, 0.4, "labels")], {"one": {}}, {}, str(file))
    assert (
        file.read_text().endswith("by hand\n") and "| method | 60.0 ± 28.3 | +0.0 ± 14.1 (labels) |" in file.read_text()
    )
    with pytest.raises(UserError, match="no finished run"):
        page([], {}, {}, None)


def test_what_pixpro_gains_is_counted_from_the_encoder_whose_batchnorm_saw_the_images(tmp_path):
    page = runpy.run_path(str(TABLE.with_name("pixpro_probe.py")))["page"]
    rows = [("none", 0.10, 0.20), ("9 steps at rate 0", 0.30, 0.50), ("9 steps", 0.35, 0.49)]
    made = [dict(data="d", row=row, miou=list(both), cpu_seconds=7) for row, *both in rows]
    text = page(made, str(tmp_path / "page.md"))
    assert "| d | none | 15.0 ± 7.1 | -25.0 ± 7.1 | 7 |" in text
    assert "| d | 9 steps at rate 0 | 40.0 ± 14.1 | – | 7 |" in text
    assert "| d | 9 steps | 42.0 ± 9.9 | +2.0 ± 4.2 | 7 |" in text
    assert (tmp_path / "page.md").read_text().endswith("## Why\n")

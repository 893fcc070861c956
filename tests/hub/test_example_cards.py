"""model_cards/examples: cards of real runs, made anew by the commands that stand on them.

To rewrite them, after a change of the cards or of what a run records:

    python tests/hub/test_example_cards.py

What another machine measures differently is taken out of both sides before they are compared (`compared`): the test
results and sentences made of them, which also have to agree within 10 points; seconds; versions and hardware.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from hub_runs import without_pictures
from huggingface_hub import ModelCard

from hf_lowlabel import cli

EXAMPLES = Path(__file__).parents[2] / "model_cards" / "examples"
REWRITE = f"python tests/hub/{Path(__file__).name}"
NETWORK = "--image-size 16 --stored-size 16"
SCRATCH = f"--dataset digits --split split.json --model cnn6_32 --from-scratch {NETWORK}"
COMMANDS = {
    "split.json": "hf-lowlabel split --dataset digits --num-labels 20 --class-balanced --test-fraction 0.2 "
    "--output split.json",
    "supervised": f"hf-lowlabel finetune {SCRATCH} --method supervised --max-steps 60 --batch-size 10 --eval-steps 60 "
    "--output-dir supervised",
    "digits-backbone": f"hf-lowlabel pretrain {SCRATCH} --method byol --max-steps 40 --batch-size 64 --optimizer sgd "
    "--learning-rate 0.2 --warmup-ratio 0.1 --min-scale 0.7 --method-args hidden=128 out=64 m0=0.97 --eval-steps 20 "
    "--output-dir digits-backbone",
    "digits-classifier": f"hf-lowlabel finetune --dataset digits --split split.json --model digits-backbone {NETWORK} "
    "--method fixmatch --max-steps 240 --batch-size 10 --unlabeled-ratio 4 --eval-steps 30 "
    "--compare-supervised supervised --output-dir digits-classifier",
    "shapes-segmenter": "hf-lowlabel finetune --task segmentation --dataset shapes --num-labels 20 --model cnn6_16 "
    "--from-scratch --architecture unet --architecture-args encoder_depth=3 'decoder_channels=[16,8,8]' "
    "--image-size 32 --scale 0.8 1.25 --method cutmix --method-args tau=0.9 --learning-rate 0.005 "
    "--lr-scheduler-type cosine --max-steps 60 --batch-size 4 --eval-steps 30 --output-dir shapes-segmenter",
}
CARDS = ("digits-backbone", "digits-classifier", "shapes-segmenter")
KEPT = ("README.md", "split.json", "curves.png", "predictions.png", "confusion.png", "reliability.png")


def make(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Run the commands in `folder`, as if they had been typed there."""
    patch.chdir(folder)
    for command in COMMANDS.values():
        patch.setattr(sys, "argv", shlex.split(command))
        assert cli.main(sys.argv[1:]) == 0


def compared(card: str) -> str:
    """The card without what differs from machine to machine."""
    card = re.sub(r"(?m)^( +value:) \S+$", r"\1 N", card)  # model-index
    card = re.sub(r"(?m)^\| (?!setting|-).*$", lambda line: _row(line[0]), card)
    card = re.sub(r"standard error of this model's accuracy \S+ %", "standard error N %", card)
    card = re.sub(r"(?m)^- .*\d %.*\n", "", card)  # limits that were computed from results
    return re.sub(r"(?m)^(- Training: .* steps) in .*$", r"\1 in N", card)


def _row(line: str) -> str:
    """A row of a table: results become N, versions and hardware go."""
    if line.startswith(("| version", "| system", "| cpu", "| cores", "| processes", "| gpu", "| memory", "| peak")):
        return ""
    return re.sub(r"\d+\.\d+( %)?(?= \|)", "N", line) if "`" not in line else line


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, level = tmp_path_factory.mktemp("examples"), logging.getLogger("hf_lowlabel").level
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)  # the card only links to them
        make(folder, patch)
    logging.getLogger("hf_lowlabel").setLevel(level)
    return folder


@pytest.mark.parametrize("name", CARDS)
def test_example_is_what_its_command_makes(made, name):
    written, fresh = (folder / name / "README.md" for folder in (EXAMPLES, made))
    assert compared(written.read_text()) == compared(fresh.read_text()), (
        f"the card has changed; if that is meant: {REWRITE}"
    )
    assert COMMANDS[name] in written.read_text()
    ours, theirs = (
        {r.metric_type: r.metric_value for r in ModelCard.load(card).data.eval_results} for card in (written, fresh)
    )
    for metric in ("accuracy", "knn_accuracy", "mean_iou", "pixel_accuracy"):
        assert ours.get(metric, 0) == pytest.approx(theirs.get(metric, 0), abs=0.1), REWRITE


@pytest.mark.parametrize("name", CARDS)
def test_example_links_to_nothing_that_is_missing(name):
    text = (EXAMPLES / name / "README.md").read_text()
    linked = {link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https://")}
    assert linked and all((EXAMPLES / name / link).is_file() for link in linked)


if __name__ == "__main__":
    import tempfile

    from PIL import Image

    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as aside, pytest.MonkeyPatch.context() as monkeypatch:
        make(Path(aside), monkeypatch)
        shutil.rmtree(EXAMPLES, ignore_errors=True)
        for example in CARDS:
            (EXAMPLES / example).mkdir(parents=True)
            text = Path(aside, example, "README.md").read_text()
            for file in [f for f in KEPT if f"({f})" in text or f == "README.md"]:
                shutil.copyfile(Path(aside, example, file), EXAMPLES / example / file)
                if file.endswith(".png"):  # a third of the bytes
                    picture = Image.open(EXAMPLES / example / file).convert("RGB")
                    picture = picture.quantize(64, Image.Quantize.FASTOCTREE)  # which keeps the colours of classes
                    picture.save(EXAMPLES / example / file, optimize=True)

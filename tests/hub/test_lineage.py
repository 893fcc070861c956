"""Weights that have seen the test images: noticed before training, said on the card of runs that start from them."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from hub_runs import without_pictures
from huggingface_hub import ModelCard

from hf_lowlabel import finetune, load_source, make_split, pretrain
from hf_lowlabel.models import create_backbone
from hf_lowlabel.records import RunRecord
from hf_lowlabel.training.lineage import images_seen

TINY = dict(dataset="digits", image_size=16, stored_size=16, color=False, max_steps=1, eval_steps=9, device="cpu")
WARNING = "are among those that"


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A split, a backbone that saw every image and one that saw none of the test images."""
    folder = tmp_path_factory.mktemp("lineage")
    split = make_split(load_source("digits"), 10, seed=0, class_balanced=True, test_fraction=0.2)
    split.save(folder / "split.json")
    for name, given in (("all", None), ("clean", str(folder / "split.json"))):
        pretrain(**TINY, model="cnn6_16", from_scratch=True, batch_size=8, split=given, output_dir=str(folder / name))
    return folder


def tuned(folder, start, **settings):
    run = finetune(
        **{
            **TINY,
            "method": "supervised",
            "batch_size": 4,
            "model": str(folder / start),
            "split": str(folder / "split.json"),
            **settings,
        }
    )
    return run, ModelCard.load(run.folder / "README.md").text


def test_a_backbone_that_saw_the_test_images_is_warned_of(folder, caplog):
    with caplog.at_level(logging.WARNING, "hf_lowlabel"):
        run, card = tuned(folder, "all", output_dir=str(folder / "a"))
    assert f"359 of the 359 test images {WARNING}" in caplog.text and "--split to pretrain" in caplog.text
    limits = card.partition("## Limits")[2].partition("## How")[0]
    assert limits.strip().startswith("- **Earlier stages had trained on 359 test images of its finetuning**")
    assert RunRecord.from_json(run.folder / "run.json").lineage[-1].saw_test == 359


def test_a_backbone_that_left_them_out_is_not(folder, caplog):
    with caplog.at_level(logging.WARNING, "hf_lowlabel"):
        _, card = tuned(folder, "clean", output_dir=str(folder / "b"))
    assert WARNING not in caplog.text and "Earlier stages had trained on" not in card


def test_another_draw_of_test_images_is_seen_in_part(folder):
    """The classifier's manifest held out other images: of 359 only those that it held out too were not trained on."""
    source = load_source("digits")
    other = make_split(source, 10, seed=1, class_balanced=True, test_fraction=0.2)
    first = set(make_split(source, 10, seed=0, class_balanced=True, test_fraction=0.2).test)
    assert images_seen(folder / "clean", source, other.test) == len(set(other.test) - first) > 200


def test_a_stage_further_back_is_remembered(folder):
    """Target pretraining with a split, from weights that had seen all of it: the classifier's card still says so."""
    pretrain(
        **TINY,
        model=str(folder / "all"),
        batch_size=8,
        split=str(folder / "split.json"),
        output_dir=str(folder / "second"),
    )
    _, card = tuned(folder, "second", output_dir=str(folder / "c"))
    assert "**Earlier stages had trained on 359 test images of its target pretraining**" in card


def test_labels_that_come_later_do_not_hide_it_and_other_data_is_left_alone(folder):
    source = load_source("digits")
    test = source.ids[:5]
    renamed = dataclasses.replace(source, class_names=[f"digit {n}" for n in source.class_names], fingerprint="0" * 64)
    assert images_seen(folder / "all", renamed, test) == 5
    assert images_seen(folder / "all", dataclasses.replace(renamed, name="photos"), test) == 0
    assert images_seen(folder / "all", dataclasses.replace(source, name="photos"), test) == 5  # a folder that was moved
    assert images_seen(folder, source, test) == images_seen("resnet18", source, test) == 0


def test_a_stride_that_the_weights_brought_along_stays_on_the_card(tmp_path):
    """smp cannot build a Unet on it, so the card does not say how."""
    create_backbone("test_resnet", pretrained=False, output_stride=16).save_pretrained(tmp_path / "start")
    run = pretrain(**TINY, model=str(tmp_path / "start"), batch_size=8, output_dir=str(tmp_path / "run"))
    card = ModelCard.load(run.folder / "README.md").text
    assert "| output_stride | `16` |" in card and "timm.create_model" in card and "smp.Unet" not in card

"""Rounds of labels as a person goes through them: an oracle fills in labels.csv, processes are killed in between."""

import json
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.mask_page import MaskSession
from hf_lowlabel.labeling.page import Session
from hf_lowlabel.ladder import adapted, planning, rounds, trained
from hf_lowlabel.ladder.auto import auto
from hf_lowlabel.ladder.estimates import Interval
from hf_lowlabel.ladder.next_gain import gain_by_rounds, gain_of, not_worth_it, sentence
from hf_lowlabel.ladder.rounds import loop
from hf_lowlabel.models import create_backbone
from hf_lowlabel.tasks.classification import Classification

from .test_auto import photos


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("net")
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(folder)
    return str(folder)


def answer(folder, leave=0):
    """The class of a file is the first word of its name; the last `leave` stay open."""
    head, *rows = (folder / "labels.csv").read_text().splitlines()
    known = [row.replace(",,", f",{row.split(',')[1].split('-')[0]},", 1) for row in rows[: len(rows) - leave]]
    (folder / "labels.csv").write_text("\n".join([head, *known, *rows[len(rows) - leave :]]) + "\n")


def test_from_no_label_round_by_round(tmp_path, capsys, monkeypatch):
    """Each call ends where labels are needed; the same command goes on. A second process is refused. Features of the
    first round are those of all, of images smaller than the network's own size too."""
    data, out = photos(tmp_path / "photos", each=16, sort=False), tmp_path / "loop"
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "net")
    monkeypatch.setattr(Classification, "features", lambda *_: pytest.fail("features are computed once more"))
    argv = [
        "loop",
        str(data),
        "--model",
        str(tmp_path / "net"),
        "--output-dir",
        str(out),
        "--budget",
        "9",
        "--per-round",
        "6",
    ]
    argv += ["--no-train", "--json"]

    def step(*more):
        assert main([*argv, *more]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    said = step()
    assert said == {"rounds": [], "to_label": str(out / "round-0" / "to_label"), "open": 9}
    answer(out / "round-0" / "to_label", leave=2)
    assert step()["open"] == 2 and not (out / "round-1").exists()
    answer(out / "round-0" / "to_label")
    (out / "round-1").mkdir()
    (out / "round-1" / "training.yaml").write_text("of a process that was killed")
    said = step()
    assert said["to_label"] == str(out / "round-1" / "to_label") and said["open"] == 6
    assert [one["labels"] for one in said["rounds"]] == [9]
    answer(out / "round-1" / "to_label", leave=1)
    said = step("--partial")
    assert [one["labels"] for one in said["rounds"]] == [9, 14] and said["open"] == 6
    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert lines == said["rounds"] and lines[1]["accuracy"]["low"] <= lines[1]["accuracy"]["high"]
    assert len(list((out / "features").glob("*.safetensors"))) == 1  # computed once
    assert main([*argv[:-1], "--no-page"]) == 0
    assert "6 images wait for a label" in capsys.readouterr().out
    answer(out / "round-2" / "to_label")  # of a round whose page is gone: what is in it is not made anew
    (out / "round-2" / "advice.html").unlink()
    labels = (out / "round-2" / "to_label" / "labels.csv").read_text()
    assert main([*argv, "--partial"]) == 2 and "there are answers in" in capsys.readouterr().err
    assert (out / "round-2" / "to_label" / "labels.csv").read_text() == labels


def test_a_finished_run_chooses_the_first_images_of_others(network, tmp_path):
    """By its doubts, and without features, which it has no use for."""
    known, new = photos(tmp_path / "known", each=6), photos(tmp_path / "new", each=8, sort=False)
    auto(known, network, num_labels=12, class_balanced=True, train=False, to_label=0, output_dir=tmp_path / "run")
    place = tmp_path / "loop" / "round-0" / "to_label"
    how = dict(budget=9, per_round=4, train=False, image_size=32)
    assert loop(new, tmp_path / "run", tmp_path / "loop", **how).open == 9
    assert Asked.load(place).strategy == "badge" and (place / "suggestions.json").is_file()
    answer(place)
    state = loop(new, tmp_path / "run", tmp_path / "loop", **how)
    assert [one.labels for one in state.rounds] == [9] and state.open == 4


def test_a_page_is_shown_until_no_image_is_left(network, tmp_path, capsys, monkeypatch):
    """Labels in the data at the beginning; the person answers all on the page; stops where nothing is left."""
    data, out, shown = photos(tmp_path / "photos", each=6, sort=False), tmp_path / "loop", []
    rows = [f"{kind}-{i:02d}.png,{kind}" for kind in ("blue", "red", "white") for i in range(3)]
    (tmp_path / "labels.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    monkeypatch.setattr("hf_lowlabel.labeling.pages.label", lambda place, **_: shown.append(place) or answer(place))
    argv = ["loop", str(data), "--model", network, "--output-dir", str(out), "--per-round", "5", "--no-train"]
    assert main([*argv, "--labels", str(tmp_path / "labels.csv")]) == 0
    text = capsys.readouterr().out
    assert shown == [out / "round-1" / "to_label", out / "round-2" / "to_label"]
    assert "No image is left to choose" in text and "5 more labels: " in text
    assert text.count("\nround labels") == 3  # after each round, and not once more at the end
    assert [json.loads(line)["labels"] for line in (out / "rounds.jsonl").read_text().splitlines()] == [9, 14, 18]


def test_a_round_that_was_stopped_goes_on_from_its_trials(network, tmp_path, monkeypatch):
    """Unless there are further labels by then: what it learned from is over."""
    data, out, left_out = photos(tmp_path / "photos", each=8), tmp_path / "loop", trained.Trials.left_out
    done, given = [], dict(first=dict(num_labels=12, class_balanced=True), per_round=2)
    monkeypatch.setattr(adapted, "LEAST", float("inf"))
    monkeypatch.setattr(planning, "FEWEST", 2)
    monkeypatch.setattr(planning, "MOST", 2)

    def once(self, *args):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(args)
        return left_out(self, *args)

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(trained.Trials, "left_out", once)
        loop(data, network, out, **given)
    kept = {p: p.stat().st_mtime_ns for p in (out / "round-1" / "trials").glob("*/tallies.safetensors")}
    assert len(kept) == 2
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(trained.Trials, "left_out", once)
        loop(data, network, out, **given)
    assert kept == {p: p.stat().st_mtime_ns for p in (out / "round-1" / "trials").glob("*/tallies.safetensors")}
    more = dict(given, first=dict(num_labels=15, class_balanced=True))
    assert loop(data, network, out, **more).rounds[0].labels == 15


def test_two_processes_at_once(network, tmp_path):
    (tmp_path / "loop").mkdir()
    held = rounds.claim(tmp_path / "loop", resume=True)
    try:
        with pytest.raises(UserError, match="in use by process"):
            loop(photos(tmp_path / "photos", each=2), network, tmp_path / "loop")
    finally:
        rounds.release(held)


def test_what_another_round_would_bring():
    now, later = Interval(0.7, 0.6, 0.8), Interval(0.8, 0.7, 0.9)
    assert gain_of(now, later, 40, 60).value == pytest.approx(0.1)  # 2.5 times the labels: the forecast itself
    small, large = gain_of(now, later, 40, 10), gain_of(now, later, 40, 40)
    assert 0 < small.value < large.value < 0.1 and small.high - small.low < large.high - large.low
    assert sentence(Interval(0.03, -0.01, 0.07), False, 20, 0) == "20 more labels: +3 points (-1 to +7, 80 %). Go on."
    said = sentence(Interval(0.004, -0.03, 0.04), True, 20, 3)
    assert "hardly worth a round. Stop here, or look again at 3 of the labels first" in said
    assert "not known yet" in sentence(None, False, 20, 0)


def test_what_was_added_to_advice_by_hand_is_passed_over(tmp_path):
    interval = dict(value=0.5, low=0.4, high=0.6, note="by me")
    said = dict(accuracy=interval, forecast=interval, gain=None, next=[], copies=[], doubtful=[], strangers=[])
    (tmp_path / "advice.json").write_text(json.dumps(said))
    Split("photos", ["a", "b"], {"1.png": "a"}).save(tmp_path / "split.json")
    found = rounds.read_round(tmp_path, [], 20, "accuracy")
    assert found.accuracy == found.forecast == Interval(0.5, 0.4, 0.6) and not found.trained_on


def test_bad_input(network, tmp_path, capsys):
    assert main(["loop", "digits", "--model", network, "--output-dir", str(tmp_path / "a"), "--per-round", "0"]) == 2
    assert "per_round is 0. Give 1 or more." in capsys.readouterr().err and not (tmp_path / "a").exists()
    (tmp_path / "b" / "round-1").mkdir(parents=True)
    (tmp_path / "b" / "round-1" / "thesis.txt").write_text("of somebody else")
    assert main(["loop", "digits", "--model", network, "--output-dir", str(tmp_path / "b")]) == 2
    assert "no loop.json" in capsys.readouterr().err and (tmp_path / "b" / "round-1" / "thesis.txt").exists()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "loop.json").write_text('{"dataset": "others"}')
    assert main(["loop", "digits", "--model", network, "--output-dir", str(tmp_path / "c")]) == 2
    assert "are about others, not about digits" in capsys.readouterr().err


# ---- masks -----------------------------------------------------------------------------------------------------------
def discs(folder, count=14):
    """Images of a bright disc, and where the disc is, by the name of the image."""
    rng, truth = np.random.default_rng(0), {}
    (folder / "images").mkdir(parents=True)
    for i in range(count):
        y, x = np.mgrid[:48, :48]
        disc = (y - rng.integers(14, 34)) ** 2 + (x - rng.integers(14, 34)) ** 2 < rng.integers(80, 160)
        pixels = rng.integers(0, 100, (48, 48, 3)) + 120 * disc[..., None]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{i:02d}.png")
        truth[f"{i:02d}.png"] = disc.astype(np.uint8)
    return truth


def test_rounds_of_masks_begin_with_the_model_s_own(network, tmp_path, capsys, monkeypatch):
    """Each round paints what is asked; the masks end up beside the images, and the page is shown with the last run."""
    data, out, shown = tmp_path / "photos", tmp_path / "loop", []
    truth = discs(data)

    def person(place, model=None, **_):
        if len(shown) == 2:
            raise KeyboardInterrupt
        asked = Asked.load(place)
        page = MaskSession(place, asked, (), model)
        shown.append((place, model, [c["name"] for c in page.state()["classes"]]))
        for file, id in asked.files.items():
            assert model is None or page.get("/model", {"file": file}) is not None
            page.save({"file": file}, zlib.compress(truth[id].tobytes()))

    monkeypatch.setattr("hf_lowlabel.labeling.pages.label", person)
    argv = ["loop", str(data), "--task", "segmentation", "--model", network, "--output-dir", str(out), "--no-train"]
    argv += ["--budget", "4", "--per-round", "3", "--image-size", "48", "--device", "cpu"]
    assert main([*argv, "--classes", "ground", "disc", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said == {"rounds": [], "to_label": str(out / "round-0" / "to_label"), "open": 4}
    assert main([*argv, "--classes", "ground", "disc"]) == 130
    text = capsys.readouterr().out
    assert "Mean IoU on new images" in text and "3 more labels: " in text
    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert [line["labels"] for line in lines] == [4, 7] and lines[0]["gain"] is None and lines[1]["gain"] is not None
    assert [place for place, *_ in shown] == [out / f"round-{n}" / "to_label" for n in (0, 1)]
    assert [model for _, model, _ in shown] == [None, str(out / "round-1")]
    assert all(names == ["ground", "disc"] for *_, names in shown)
    beside = {file.name: np.asarray(Image.open(file)) for file in (data / "masks").iterdir()}
    assert len(beside) == 7 and all((mask == truth[name]).all() for name, mask in beside.items())
    assert not set(Asked.load(out / "round-2" / "to_label").files.values()) & set(beside)
    assert lines[1]["accuracy"]["value"] > 0.5


def test_masks_of_another_tool_are_counted_and_read(network, tmp_path, capsys, monkeypatch):
    """Also under the other name that fits; colours are refused with what this verb can do about it, and no more."""
    data, out, sessions = tmp_path / "photos", tmp_path / "loop", []
    truth = discs(data, 6)
    argv = ["loop", str(data), "--task", "segmentation", "--model", network, "--output-dir", str(out), "--no-train"]
    argv += ["--budget", "4", "--image-size", "48", "--device", "cpu", "--classes", "ground", "disc"]
    assert main([*argv, "--no-page"]) == 0
    place = out / "round-0" / "to_label"
    files = Asked.load(place).files
    (place / "masks").mkdir()

    def put(session, *_):  # while the page is open
        sessions.append(session)
        for k, (file, id) in enumerate(list(files.items())[:3]):
            name = f"{file.removesuffix('.png')}_mask.png" if k < 2 else file
            Image.fromarray(truth[id]).save(place / "masks" / name)
        print(session.parting())

    monkeypatch.setattr("hf_lowlabel.labeling.pages.serve", put)
    capsys.readouterr()
    assert main(argv) == 0
    assert "3 of 4 images have a mask; next: the loop resumes, once all have an answer" in capsys.readouterr().out
    page, file = sessions[0], next(iter(files))
    assert sum(image["mask"] for image in page.state()["images"]) == 3
    stamp = page.load(file).stamp
    page.save({"file": file, "stamp": stamp}, zlib.compress(truth[files[file]].tobytes()))
    assert len(list((place / "masks").iterdir())) == 3  # no second one beside it
    Image.new("RGB", (48, 48), (9, 200, 3)).save(place / "masks" / file.replace(".png", "_mask.png"))
    assert main([*argv, "--no-page", "--partial"]) == 2
    said = capsys.readouterr().err
    assert "of mode RGB" in said and "the number of a class" in said and "mask format" not in said
    assert not (data / "masks").exists()


def test_the_page_says_who_the_loop_goes_on_without(network, tmp_path, capsys, monkeypatch):
    data, out, then = photos(tmp_path / "photos", each=5, sort=False), tmp_path / "loop", []

    def label(place, **given):
        then.append(given["then"])
        if len(then) == 1:
            answer(place, leave=1)

    monkeypatch.setattr("hf_lowlabel.labeling.pages.label", label)
    argv = ["loop", str(data), "--model", network, "--output-dir", str(out), "--budget", "8", "--no-train"]
    assert main([*argv, "--partial", "--per-round", "3"]) == 0 and "3 images wait" in capsys.readouterr().out
    assert then == ["the loop resumes, with those that have an answer", "the loop resumes, once all have an answer"]


def test_photos_whose_masks_were_painted_may_be_deleted(network, tmp_path, caplog, capsys, monkeypatch):
    """Before their masks lie beside the images, and after it."""
    data, out, learned = tmp_path / "photos", tmp_path / "loop", []
    truth = discs(data)
    how = dict(task="segmentation", budget=7, image_size=32, device="cpu", data=dict(classes=["ground", "disc"]))

    def auto(dataset, models, *, split, skip_missing=False, **_):
        learned.append((list(json.loads(split.read_text())["labeled"]), skip_missing))
        raise UserError("enough")

    def go_on():
        with pytest.raises(UserError, match="enough"):
            loop(data, network, out, **how)
        return learned[-1], caplog.text + capsys.readouterr().err

    place = loop(data, network, out, **how).to_label
    asked = Asked.load(place)
    page, ids = MaskSession(place, asked), list(asked.files.values())
    for file, id in asked.files.items():
        page.save({"file": file}, zlib.compress(truth[id].tobytes()))
    monkeypatch.setattr(rounds, "auto", auto)
    (data / "images" / ids[0]).unlink()
    used, said = go_on()
    assert used == (ids[1:], False) and ids[0] in said and not (data / "masks" / ids[0]).exists()
    (data / "images" / ids[1]).unlink()
    used, said = go_on()
    assert used == (ids[2:], True) and f"left out: {ids[1]}" in said and (data / "masks" / ids[1]).exists()
    argv = ["auto", "--task", "segmentation", "--dataset", str(data), "--skip-missing", "--model", network, "--labels"]
    assert main([*argv, str(out)]) == 2 and "Leave out --labels" in capsys.readouterr().err
    assert main([*argv, str(place)]) == 2 and "split --task segmentation --from" in capsys.readouterr().err
    Image.fromarray(truth[ids[0]]).save(data / "masks" / "strange.png")  # not of the rounds
    assert go_on()[0] == (ids[2:], False)  # so that it is said where the data are read
    for id in ids[2:5]:
        (data / "images" / id).unlink()
    with pytest.raises(UserError, match="5 of the 7 images with a label"):
        loop(data, network, out, **how)


def test_what_more_masks_bring_is_seen_in_the_rounds():
    before = [(10, Interval(0.5, 0.4, 0.6)), (20, Interval(0.6, 0.5, 0.7))]
    gain = gain_by_rounds(before, 20)
    assert gain.value == pytest.approx(0.08) and gain.low < 0 < gain.high  # four fifths of what is wrong, again
    assert gain_by_rounds(before[:1], 20) is None and gain_by_rounds([*before[:1], (20, None)], 20) is None
    sure = gain_by_rounds([(n, Interval(i.value, i.value - 0.01, i.value + 0.01)) for n, i in before], 20)
    assert sure.low > 0.05


def test_what_is_said_of_the_next_round_is_neither_impossible_nor_too_sure():
    wide, half = Interval(0.9, 0.85, 0.95), Interval(0.5, 0.4, 0.6)
    for gain in (
        gain_by_rounds([(4, half), (24, wide)], 20),
        gain_by_rounds([(4, half), (24, Interval(1.0, 1.0, 1.0))], 20),
        gain_of(wide, Interval(0.99, 0.9, 1.0), 40, 20),
        gain_of(wide, Interval(0.99, 0.9, 1.0), 4, 200),
    ):
        now = 0.9 if gain.high > 1e-9 else 1.0
        assert gain.low <= gain.value <= gain.high <= 1 - now + 1e-9 and gain.low >= -1
    fell = gain_by_rounds([(10, Interval(0.6, 0.45, 0.75)), (14, Interval(0.58, 0.43, 0.73))], 20)
    assert fell.value < 0 and fell.high > 0.1 and fell.low >= -0.58 and not not_worth_it(fell)
    said = sentence(fell, not_worth_it(fell), 20, 0)
    assert "not known yet. Go on." in said and "Stop" not in said
    known = gain_by_rounds([(100, Interval(0.8, 0.79, 0.81)), (400, Interval(0.801, 0.791, 0.811))], 20)
    assert not_worth_it(known) and "Stop here" in sentence(known, True, 20, 0)


def test_masks_need_a_folder_and_one_kind_of_round(network, tmp_path, capsys):
    argv = ["loop", "shapes", "--task", "segmentation", "--model", network, "--output-dir", str(tmp_path / "a")]
    assert main(argv) == 2 and "needs a folder of images" in capsys.readouterr().err and not (tmp_path / "a").exists()
    with pytest.raises(UserError, match="needs a folder of images, not a list in memory"):
        loop([(np.zeros((8, 8, 3), np.uint8), None)], network, task="segmentation", output_dir=tmp_path / "a")
    assert (
        main(["loop", "digits", "--classes", "a", "b"]) == 2
        and "--classes is only for masks" in capsys.readouterr().err
    )
    discs(tmp_path / "photos", 2)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "loop.json").write_text(json.dumps({"dataset": str((tmp_path / "photos").resolve())}))
    argv = ["loop", str(tmp_path / "photos"), "--task", "segmentation", "--output-dir", str(tmp_path / "c")]
    assert main(argv) == 2 and "about classification, not about segmentation" in capsys.readouterr().err


def test_rounds_of_several_classes_of_an_image(network, tmp_path, capsys):
    """Answers are a;b or none in labels.csv; the model learns them, and suggests what to check in the next round."""
    data, out, rng = tmp_path / "photos", tmp_path / "loop", np.random.default_rng(0)
    data.mkdir()
    for i in range(24):
        pixels = rng.integers(0, 60, (16, 16, 3))
        for k in range(2):
            pixels[..., k] += 150 * (i >> k & 1)
        Image.fromarray(pixels.astype(np.uint8)).save(data / f"{i:02d}.png")

    def says(id):
        there = [name for k, name in enumerate(("red", "green")) if int(id[:2]) >> k & 1]
        return ";".join(there) or "none"

    argv = ["loop", str(data), "--task", "multilabel", "--model", network, "--output-dir", str(out), "--budget", "12"]
    argv += ["--per-round", "3", "--no-train", "--image-size", "32", "--device", "cpu", "--json"]
    for expected in ([], [12]):
        assert main(argv) == 0
        said = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert [one["labels"] for one in said["rounds"]] == expected
        place = out / f"round-{len(expected)}" / "to_label"
        (place / "classes.txt").write_text("red\ngreen\n")
        page = Session(place)
        shown = page.state()["images"]
        for image in shown:
            page.label(image["id"], says(image["id"]))
    assert said["rounds"][0]["accuracy"]["value"] > 0.8
    assert all(image["suggestion"]["why"].startswith(("uncertain: ", "no single class")) for image in shown)
    asked = Asked.load(place)
    assert asked.class_names == ["red", "green"] and asked.labeled == {id: says(id) for id in asked.labeled}
    assert len(asked.labeled) == 12 and not set(asked.labeled) & {image["id"] for image in shown}
    of = ["--task", "multilabel"]
    assert main(["split", *of, "--from", str(place), "--dataset", str(data), "--output", str(tmp_path / "s.json")]) == 0
    argv = ["finetune", "--dataset", str(data), "--split", str(tmp_path / "s.json"), "--model", network, "--method"]
    assert main([*argv, "probe", "--output-dir", str(tmp_path / "one")]) == 2
    assert "several classes an image. Give --task multilabel" in capsys.readouterr().err
    more = ["probe", *of, "--output-dir", str(tmp_path / "several"), "--device", "cpu"]
    assert main([*argv, *more]) == 0

"""What becomes of labels between rounds: classes renamed, photos deleted, folders moved, labels taken along."""

import json
import shutil

import pytest
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.labels import Asked, Labels, read_labels, write_labels
from hf_lowlabel.labeling.other_rounds import GONE
from hf_lowlabel.labeling.page import Session
from hf_lowlabel.ladder.gathering import brought_up
from hf_lowlabel.ladder.rounds import loop

from .test_auto import photos
from .test_rounds import answer, network  # noqa: F401


@pytest.fixture(scope="module")
def two_rounds(network, tmp_path_factory):  # noqa: F811
    """Photos, and a loop of them after its first round, whose next images are labeled too."""
    base = tmp_path_factory.mktemp("loop")
    data = photos(base / "photos", each=10, sort=False)
    go_on(base, network)
    answer(base / "loop" / "round-0" / "to_label")
    go_on(base, network)
    answer(base / "loop" / "round-1" / "to_label")
    assert data.is_dir()
    return base


@pytest.fixture
def base(two_rounds, tmp_path):
    shutil.copytree(two_rounds, tmp_path / "all")
    note = tmp_path / "all" / "loop" / "loop.json"
    note.write_text(json.dumps({"dataset": str(tmp_path / "all" / "photos"), "task": "classification"}))
    return tmp_path / "all"


def go_on(base, net, data="photos", out="loop", **more):
    how = dict(budget=9, per_round=4, train=False, image_size=16, device="cpu", **more)
    return loop(base / data, net, base / out, **how)


def ids_of(base, number):
    return list(Asked.load(base / "loop" / f"round-{number}" / "to_label").files.values())


def classes_of(base, number):
    config = json.loads((base / "loop" / f"round-{number}" / "config.json").read_text())
    return set(config["label_names"])


def labels_of(base, number, out="loop"):
    return json.loads((base / out / f"round-{number}" / "split.json").read_text())["labeled"]


def test_a_class_renamed_on_the_page_or_by_hand_is_one_class(base, network):  # noqa: F811
    place = base / "loop" / "round-1" / "to_label"
    Session(place).new_class("black")  # that no image has
    Session(place).rename("blue", "azure")
    table = base / "loop" / "round-0" / "to_label" / "labels.csv"
    table.write_text(table.read_text().replace(",red,", ",crimson,"))
    rows = (place / "labels.csv").read_text()
    (place / "labels.csv").write_text(rows.replace(",red,", ",crimson,"))
    state = go_on(base, network)
    labels = labels_of(base, 2)
    assert set(labels.values()) == {"azure", "crimson", "white"} == classes_of(base, 2) and len(labels) == 13
    assert all(("azure" == name) == id.startswith("blue") for id, name in labels.items())
    asked = Asked.load(state.to_label)
    assert set(asked.class_names) == {"azure", "crimson", "white"} and asked.labeled == labels
    own = base / "loop" / "round-2" / "to_label"
    table.write_text(table.read_text().replace(",crimson,", ",,"))  # taken off by hand
    brought_up(base / "loop", "classification")
    assert set(Asked.load(own).labeled) == {
        id for id, name in labels.items() if id not in ids_of(base, 0) or name != "crimson"
    }


def test_a_labeled_photo_that_was_deleted_is_left_out(base, network, caplog):  # noqa: F811
    gone = ids_of(base, 0)[0]
    (base / "photos" / gone).unlink()
    state = go_on(base, network)
    assert "1 image with a label is not in" in caplog.text and gone in caplog.text
    assert len(labels_of(base, 2)) == 12 and gone not in labels_of(base, 2)
    waits = Asked.load(state.to_label)
    later = list(waits.files.values())[1]  # one that waits for a label, and comes back
    (base / "photos" / later).rename(base / later)
    state = go_on(base, network)
    assert state.open == len(waits.files) - 1 and later in caplog.text
    found = read_labels(state.to_label / "labels.csv", waits)
    assert found.why == {later: GONE}
    (base / later).rename(base / "photos" / later)
    assert go_on(base, network).open == len(waits.files)
    answer(state.to_label)
    (base / "photos" / later).unlink()  # after it has a label
    go_on(base, network)
    assert later not in labels_of(base, 3)


def test_waiting_photos_may_be_deleted_as_long_as_most_of_the_rounds_are_there(base, network):  # noqa: F811
    place, ids = base / "loop" / "round-1" / "to_label", ids_of(base, 1)
    write_labels(place / "labels.csv", Asked.load(place), Labels({ids[0]: ids[0].split("-")[0]}))
    for id in ids[1:]:
        (base / "photos" / id).unlink()
    state = go_on(base, network)
    assert state.rounds[-1].labels == 10 and not {*ids_of(base, 2)} & {*ids}
    for id in [*ids_of(base, 0), *ids_of(base, 2)][:9]:
        (base / "photos" / id).unlink()
    with pytest.raises(UserError, match="12 of the 17 images of the rounds up to .* are not in"):
        go_on(base, network)


def test_where_most_photos_are_gone_it_is_another_folder(base, network):  # noqa: F811
    for id in [*ids_of(base, 0), *ids_of(base, 1)][:8]:
        (base / "photos" / id).unlink()
    with pytest.raises(UserError, match="8 of the 13 images with a label .* are not in"):
        go_on(base, network)
    assert not (base / "loop" / "round-2" / "split.json").exists()


def test_labels_of_rounds_begin_another_loop(base, network, caplog, capsys):  # noqa: F811
    gone = ids_of(base, 0)[0]
    (base / "photos" / gone).unlink()
    for name, given in (("b", base / "loop" / "round-1" / "to_label"), ("c", base / "loop")):
        state = go_on(base, network, out=name, first=dict(labels=str(given)))
        assert state.rounds[0].labels == 12 and gone in caplog.text
    shutil.rmtree(base / "loop" / "round-1")
    answered = base / "loop" / "round-0" / "to_label" / "labels.csv"
    answered.write_text(answered.read_text().replace(",red,", ",,").replace(",blue,", ",,").replace(",white,", ",,"))
    with pytest.raises(UserError, match="No round in .* has a label"):
        go_on(base, network, out="d", first=dict(labels=str(base / "loop")))
    assert not (base / "d").exists()


def test_auto_and_manifests_take_the_labels_of_rounds_as_the_loop_does(base, network, capsys, caplog):  # noqa: F811
    """Of the folder of one round and of the whole loop, of the photos that are there."""
    gone = ids_of(base, 0)[0]
    (base / "photos" / gone).unlink()
    last = Asked.load(base / "loop" / "round-1" / "to_label")
    for k, given in enumerate((base / "loop" / "round-1" / "to_label", base / "loop")):
        out = base / f"s{k}.json"
        argv = ["--dataset", str(base / "photos"), "--new-classes"]
        assert main(["split", "--from", str(given), *argv, "--allow-missing", "--output", str(out)]) == 0
        said = json.loads(out.read_text())["labeled"]
        assert len(said) == 12 and gone not in said and {*last.files.values()} < {*said}
        assert gone in caplog.text + capsys.readouterr().err
    argv = ["--dataset", str(base / "photos"), "--labels", str(base / "loop"), "--device", "cpu", "--model", network]
    run = ["auto", *argv, "--no-train", "--image-size", "16", "--to-label", "0", "--output-dir", str(base / "run")]
    assert main(run) == 0
    assert set(json.loads((base / "run" / "split.json").read_text())["labeled"]) == {*said}
    assert main(["select", *argv, "--budget", "3", "--output", str(base / "more")]) == 0
    assert not {*Asked.load(base / "more").files.values()} & {*said}
    for id in [*ids_of(base, 0), *ids_of(base, 1)][1:8]:
        (base / "photos" / id).unlink()
    assert main([*run[:-1], str(base / "other")]) == 2
    assert "8 of the 13 images with a label" in capsys.readouterr().err and not (base / "other").exists()


def test_a_folder_that_moved_is_known_by_its_photos(base, network, caplog):  # noqa: F811
    (base / "photos").rename(base / "moved")
    (base / "moved" / ids_of(base, 0)[0]).unlink()
    assert len(go_on(base, network, data="moved").rounds) == 2
    assert "the rounds go on with them" in caplog.text
    assert json.loads((base / "loop" / "loop.json").read_text())["dataset"] == str(base / "moved")
    (base / "others").mkdir()
    for file in (base / "moved").iterdir():  # of the same names, as every camera gives them
        Image.new("RGB", (16, 16), (1, 2, 3)).save(base / "others" / file.name)
    with pytest.raises(UserError, match="which holds other photos. Give another --output-dir. The labels") as error:
        go_on(base, network, data="others")
    assert f"--labels {base / 'loop' / 'round-1' / 'to_label'}." in str(error.value)
    assert json.loads((base / "loop" / "loop.json").read_text())["dataset"] == str(base / "moved")


def test_a_renaming_that_was_killed_is_finished_by_the_loop(base, network, monkeypatch):  # noqa: F811
    place = base / "loop" / "round-1" / "to_label"

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as m, pytest.raises(Killed):
        m.setattr("hf_lowlabel.labeling.page.write_labels", killed)
        Session(place).rename("blue", "azure")
    assert (place / "renaming.json").is_file()
    argv = ["loop", str(base / "photos"), "--model", network, "--output-dir", str(base / "loop"), "--no-train"]
    assert main([*argv, "--per-round", "4", "--image-size", "16", "--device", "cpu", "--no-page"]) == 0
    assert set(labels_of(base, 2).values()) == {"azure", "red", "white"} and not (place / "renaming.json").exists()


def test_what_is_corrected_in_a_second_look_is_learned_in_the_next_round(base, network, capsys):  # noqa: F811
    loop_folder, gone = base / "loop", ids_of(base, 0)[1]
    file = loop_folder / "round-1" / "advice.json"
    said = json.loads(file.read_text())
    said["doubtful"] = [{"images": [gone], "why": "planted", "looks_like": None}]
    file.write_text(json.dumps(said))
    assert main(["review", str(loop_folder / "round-1"), "--no-page"]) == 0
    assert "`hf-lowlabel loop` again" in capsys.readouterr().out
    place = loop_folder / "round-1" / "review"
    page = Session(place)
    page.label(gone, next(name for name in page.classes if not gone.startswith(name)))
    go_on(base, network)
    assert labels_of(base, 2)[gone] == page.labels.labels[gone]
    assert Split.load(loop_folder / "round-2" / "split.json").reviewed == [gone]  # not to be looked at a third time


def test_a_round_asks_for_no_more_than_there_is(base, network, capsys):  # noqa: F811
    how = dict(per_round=400, train=False, image_size=16, device="cpu")
    state = loop(base / "photos", network, base / "loop", **how)
    assert state.rounds[-1].sentence.startswith("17 more labels: ") and state.open == 17
    answer(state.to_label)
    state = loop(base / "photos", network, base / "loop", **how)
    assert state.rounds[-1].sentence == "No image is left to choose." and state.to_label is None
    assert str(state).count("No image is left") == 1
    for id in ("blue-0", "red-0", "white-0"):  # photos that come later are asked for, once
        shutil.copyfile(base / "photos" / f"{id}1.png", base / "photos" / f"{id}1-later.png")
    state = loop(base / "photos", network, base / "loop", **how)
    assert sorted(ids_of(base, 4)) == ["blue-01-later.png", "red-01-later.png", "white-01-later.png"]
    assert len(state.rounds) == 4 and state.open == 3 and len(labels_of(base, 4)) == 30
    answer(state.to_label)
    assert len(loop(base / "photos", network, base / "loop", **how).rounds) == 5
    (base / "photos" / "blue-01-later.png").unlink()  # none is new
    assert len(loop(base / "photos", network, base / "loop", **how).rounds) == 5


def test_fewer_images_than_are_usual_are_all_asked_for(network, tmp_path):  # noqa: F811
    photos(tmp_path / "photos", each=2, sort=False)
    how = dict(train=False, image_size=16, device="cpu")
    assert loop(tmp_path / "photos", network, tmp_path / "a", **how).open == 6
    assert loop(tmp_path / "photos", network, tmp_path / "b", budget=7, **how).open == 6
    assert loop(tmp_path / "photos", network, tmp_path / "c", budget=2, **how).open == 2
    masks = dict(task="segmentation", data=dict(classes=["ground", "disc"]), **how)
    assert loop(tmp_path / "photos", network, tmp_path / "d", **masks).open == 6
    with pytest.raises(UserError, match="budget is 0. Give 1 or more"):
        loop(tmp_path / "photos", network, tmp_path / "e", budget=0, **how)


def test_new_photos_where_all_others_had_a_label_from_the_beginning(network, tmp_path):  # noqa: F811
    data = photos(tmp_path / "photos", each=4, sort=False)
    rows = [f"{path.name},{path.name.split('-')[0]}" for path in sorted(data.iterdir())]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,label", *rows]))
    first = dict(labels=str(tmp_path / "labels.csv"))
    assert go_on(tmp_path, network, first=first).to_label is None
    shutil.copyfile(data / "red-01.png", data / "red-09.png")
    state = go_on(tmp_path, network, first=first)
    assert ids_of(tmp_path, 2) == ["red-09.png"] and [one.labels for one in state.rounds] == [12, 12]


def test_what_was_passed_over_is_not_asked_for_again(base, network):  # noqa: F811
    """Not in the next round, nor in one after it, nor by a selection of its own; unless that is undone."""
    place, ids = base / "loop" / "round-1" / "to_label", ids_of(base, 1)
    page = Session(place)
    page.label(ids[0], skipped=True, why="none of these")
    page.label(ids[1], skipped=True, why="unsure")
    state = go_on(base, network)
    assert not {*ids_of(base, 2)} & {*ids[:2]} and Asked.load(state.to_label).passed_over == sorted(ids[:2])
    answer(state.to_label)
    page.label(ids[1], "red")
    how = dict(per_round=400, train=False, image_size=16, device="cpu")
    state = loop(base / "photos", network, base / "loop", **how)
    asked = Asked.load(state.to_label)
    assert len(asked.files) == 30 - 13 - 4 and ids[0] not in asked.files.values() and asked.passed_over == ids[:1]
    assert labels_of(base, 3)[ids[1]] == "red"
    argv = ["--dataset", str(base / "photos"), "--model", network, "--labels", str(base / "loop"), "--device", "cpu"]
    assert main(["select", *argv, "--budget", "13", "--output", str(base / "more")]) == 0
    more = Asked.load(base / "more")
    assert {*more.files.values()} == {*asked.files.values()} and more.passed_over == ids[:1]
    answer(base / "more")
    auto = ["auto", "--dataset", str(base / "photos"), "--labels", str(base / "more"), "--model", network]
    assert main([*auto, "--no-train", "--image-size", "16", "--device", "cpu", "--output-dir", str(base / "run")]) == 0
    assert not (base / "run" / "to_label").exists()  # the one that is left was passed over


def test_labels_of_test_images_go_from_round_to_round(network, tmp_path):  # noqa: F811
    """Those of a table, which the photos do not have."""
    data = photos(tmp_path / "photos", each=10, sort=False)
    names = [path.name for path in sorted(data.iterdir())]
    told = {name: name.split("-")[0] for name in names if name[-5] in "01"}
    rows = [
        f"{name},{name.split('-')[0]},{'test' if name in told else 'train'}" for name in names if name[-5] in "0123"
    ]
    (tmp_path / "truth.csv").write_text("\n".join(["file_name,label,split", *rows]))
    first = dict(labels=str(tmp_path / "truth.csv"))
    state = go_on(tmp_path, network, first=first)
    answer(state.to_label)
    go_on(tmp_path, network, first=first)
    for number in (1, 2):
        folder = tmp_path / "loop" / f"round-{number}"
        assert json.loads((folder / "split.json").read_text())["held_labels"] == told
        assert "accuracy" in json.loads((folder / "metrics.json").read_text())
    state = go_on(tmp_path, network, first=first)
    answer(state.to_label)
    page = Session(state.to_label)
    page.rename("blue", "sea")
    page.rename("red", "")
    go_on(tmp_path, network, first=first, partial=True)
    split = json.loads((tmp_path / "loop" / "round-3" / "split.json").read_text())
    then = {id: label.replace("blue", "sea") for id, label in told.items() if label != "red"}
    assert split["held_labels"] == then and {*split["test"]} == {*then} and "blue" not in split["class_names"]

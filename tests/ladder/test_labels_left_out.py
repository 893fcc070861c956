"""Rows of finished labels that are left out are counted and listed, whichever verb reads them."""

import csv

import pytest

from hf_lowlabel.cli import main

from .test_auto import network, photos  # noqa: F401


@pytest.fixture
def base(tmp_path, monkeypatch):
    """Photos, and a table of which two rows name no image and one image has two classes."""
    monkeypatch.chdir(tmp_path)
    data = photos(tmp_path / "photos", each=8, sort=False)
    rows = [f"{kind}-{i:02d}.png,{kind}" for kind in ("blue", "red", "white") for i in range(5)]
    rows += ["gone.png,red", "typo-01.png,blue", "red-00.png,blue"]
    (tmp_path / "labels.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    return data


LISTED = {"gone.png", "typo-01.png", "red-00.png"}
SKIP = ["--labels", "labels.csv", "--skip-missing", "--skip-conflicts"]
SMALL = ["--no-train", "--no-page", "--per-round", "4"]


@pytest.mark.parametrize(
    ("argv", "written"),
    [
        (["auto", "--dataset", "photos", "--no-train", "--to-label", "0", "--output-dir", "out", *SKIP], "out"),
        (["loop", "photos", "--output-dir", "out", *SMALL, *SKIP], "out/round-1"),
        (["select", "--dataset", "photos", "--budget", "3", "--output", "out", *SKIP], "out"),
    ],
)
def test_labels_left_out_are_listed(base, network, tmp_path, argv, written):  # noqa: F811
    with pytest.warns(UserWarning, match=f"3 rows or objects of 'photos' .*{written}/left_out.csv lists them"):
        assert main([*argv, "--model", str(network)]) == 0
    with open(tmp_path / written / "left_out.csv", encoding="utf-8") as file:
        assert {row["name"] for row in csv.DictReader(file)} == LISTED


def test_those_of_the_data_are_listed_by_select_too(base, network, tmp_path):  # noqa: F811
    """Beside those of the labels; a manifest without the data lists its own."""
    (tmp_path / "labels.csv").rename(base / "metadata.csv")
    flags = ["--skip-missing", "--skip-conflicts"]
    argv = ["select", "--dataset", "photos", "--budget", "3", "--model", str(network), "--output", "out"]
    assert main([*argv, *flags]) == 0
    assert (tmp_path / "out" / "left_out.csv").read_text().count("\n") == 4
    table = tmp_path / "out" / "labels.csv"
    table.write_text(table.read_text(encoding="utf-8-sig").replace(",,", ",red,") + "gone.png,gone.png,red,\n")
    assert main(["split", "--from", "out", "--output", "s.json", "--new-classes", *flags]) == 0
    assert (tmp_path / "s.left_out.csv").read_text().count("\n") == 2


def test_faults_of_a_table_name_the_flags_that_leave_them_out(base, network, capsys):  # noqa: F811
    """Each where it helps, and what the rows do not name is no chosen image: none was chosen."""
    argv = ["auto", "--dataset", "photos", "--model", str(network), "--no-train", "--output-dir", "out"]
    assert main([*argv, "--labels", "labels.csv"]) == 2
    said = capsys.readouterr().err
    assert "no image has the file name 'gone.png'" in said and "chosen" not in said
    assert "--skip-missing leaves out rows" in said and "--skip-conflicts leaves images" in said
    assert main([*argv, "--labels", "labels.csv", "--skip-missing"]) == 2
    said = capsys.readouterr().err
    assert "--skip-missing" not in said and "--skip-conflicts leaves images" in said
    assert main(["select", *argv[1:5], "--budget", "3", "--output", "sel"]) == 0
    table = base.parent / "sel" / "labels.csv"
    table.write_text(table.read_text(encoding="utf-8-sig") + "gone.png,gone.png,red,\n")
    capsys.readouterr()
    assert (
        main(["label", "sel", "--no-browser"]) == 2 and "--skip" not in capsys.readouterr().err
    )  # it has no such flag

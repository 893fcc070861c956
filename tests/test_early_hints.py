"""What is wrong with a command is said at once: before the Hub is asked, and before libraries and data are loaded."""

import builtins
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from hf_lowlabel import UserError
from hf_lowlabel.cli import VERBS, main
from hf_lowlabel.errors import unknown
from hf_lowlabel.models import checkpoint_resolver
from hf_lowlabel.models.checkpoint_resolver import locate, model_config, refuse_gone
from hf_lowlabel.tasks import EMBEDDED, LABELING, TASKS, get_task


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A working directory with runs/best; whoever asks the Hub fails."""

    def hub(*_, **__):
        raise AssertionError("the Hub was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint_resolver, "hf_hub_download", hub)
    (tmp_path / "runs" / "best").mkdir(parents=True)
    (tmp_path / "photos").mkdir()


@pytest.mark.parametrize("name", ["runs/bets", "runs/bets/", "gone/runs/best", "./best", "~/no-such/best", "/no/such"])
def test_a_folder_that_is_gone_is_no_hub_id(offline, name):
    for ask in (model_config, lambda name: locate(name, True, None)):
        with pytest.raises(UserError, match="There is no folder") as error:
            ask(name)
        assert ("Did you mean 'runs/best'?" in str(error.value)) == name.startswith("runs/")


@pytest.mark.parametrize(
    "argv",
    [
        "predict photos --model runs/bets",
        "evaluate --dataset photos --model runs/bets",
        "export runs/bets",
        "select --dataset photos --budget 2 --output out --model runs/bets",
        "finetune --dataset photos --model runs/bets",
        "auto photos --model runs/bets --num-labels 2",
        "priors --dataset photos --text-model runs/bets --classes cat dog",
    ],
)
def test_verbs_say_that_it_is_gone(offline, capsys, argv):
    for name in ("cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"):
        Path("photos", name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(Path("photos", name))
    assert main(argv.split()) == 2
    said = capsys.readouterr().err
    assert "There is no folder" in said and "runs/bets" in said and "scratch" not in said


HASTY = [
    ("predict nwe/ --model runs/best", "There is no file or folder 'nwe/'"),
    ("predict photos --model runs/best --output here.csv", "here.csv is there already"),
    ("predict photos --model runs/best --batch-size 0", "batch_size is 0"),
    ("evaluate --model runs/best --dataset photso/", "Did you mean 'photos'?"),
    ("auto --dataset photso/", "Did you mean 'photos'?"),
    ("auto --dataset photos --labels gone.csv", "There is no file or folder 'gone.csv' with labels"),
    ("auto --dataset photos --split gone.json", "There is no gone.json. Correct the path"),
    ("auto --dataset photos --minutes -1", "minutes is -1"),
    ("auto --dataset photos --to-label -1", "to_label is -1"),
    ("auto --dataset photos --task segmentatoin", "did you mean 'segmentation'"),
    ("loop photso/", "Did you mean 'photos'?"),
    ("loop photos --minutes 0", "minutes is 0"),
    ("loop photos --labels gone.csv", "There is no file or folder 'gone.csv' with labels"),
    ("select --dataset photso/ --model resnet18 --budget 4 --output out", "Did you mean 'photos'?"),
    ("select --dataset photos --model resnet18 --budget 0 --output out", "budget is 0"),
    ("split --from gone.csv --dataset photos --output s.json", "There is no file or folder 'gone.csv' with labels"),
    ("priors --dataset photos --split gone.json --model resnet18", "There is no gone.json. Correct the path"),
    ("finetune --dataset photos --method fixmach", "did you mean 'fixmatch'"),
    ("pretrain --dataset photso/ --method byol", "Did you mean 'photos'?"),
    ("finetune --dataset photos --split gone.json", "There is no gone.json. Correct the path"),
    ("finetune --dataset photos --num-labels -3", "num_labels is -3. It must be at least 1."),
    ("finetune --max-steps 3", "No data is given. Name it with --dataset"),
    ("pretrain --dataset photos --learning-rate nan", "learning_rate is nan. It must be a finite number."),
    ("finetune --dataset photos --image-size 0", "image_size is 0. It must be at least"),
    ("pretrain --dataset photos --optimizer sdg", "unknown optimizer 'sdg': did you mean 'sgd'"),
    ("auto photos --num-labels -3", "num_labels is -3. It must be at least 1."),
    ("loop photos --image-size 0", "image_size is 0. It must be at least"),
    ("select --dataset photos --model resnet18 --budget 4 --output o --seed -1", "seed is -1. It must be at least"),
    ("evaluate --dataset photos --model m --mask-ignore -4", "mask_ignore is [-4]. It must be at least 0"),
    ("auto photos --resume", "There is no --resume of auto. The same command resumes"),
    ("loop photos --resume", "There is no --resume of loop. The same command resumes"),
    ("select --dataset photos --resume", "There is no --resume of select. Run the same command again"),
    ("predict photos --model photos", "There is no config.json in photos"),
]


def fresh(code, folder):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300)


def test_what_the_words_and_the_disk_tell_is_said_without_torch(tmp_path):
    """Seconds of imports before a sentence about a typing error are too many."""
    for made in ("photos", "runs/best"):
        (tmp_path / made).mkdir(parents=True)
    (tmp_path / "here.csv").write_text("mine")
    (tmp_path / "predictions.csv").write_text("mine")
    (tmp_path / "runs/best/config.json").write_text("{}")
    code = (
        "import sys\nfrom hf_lowlabel.cli import main\n"
        f"for argv in {[argv for argv, _ in HASTY]!r}:\n"
        "    said = main(argv.split()), {'torch', 'timm', 'segmentation_models_pytorch'} & {*sys.modules}\n"
        "    print(*said, flush=True)\n    print('----', file=sys.stderr, flush=True)\n"
    )
    done = fresh(code, tmp_path)
    assert done.stdout.splitlines() == ["2 set()"] * len(HASTY), done.stderr
    for (argv, words), said in zip(HASTY, done.stderr.split("----"), strict=False):
        assert words in said, (argv, said)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["here.csv", "photos", "predictions.csv", "runs"]


def test_the_page_for_labels_loads_no_network(tmp_path):
    code = (
        "import sys\nfrom hf_lowlabel.cli import main\nassert main(['label', 'gone']) == 2\n"
        "heavy = {'timm', 'transformers', 'segmentation_models_pytorch'} & {*sys.modules}\n"
        "assert not heavy, heavy\n"
    )
    done = fresh(code, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("task", TASKS)
def test_what_is_known_of_a_task_before_it_is_loaded_is_so(task):
    loaded = get_task(task)
    assert loaded.labeling == LABELING[task] and loaded.demo.dataset == EMBEDDED[task]


def test_an_id_of_the_hub_is_one(offline, monkeypatch):
    refuse_gone("org/name")
    refuse_gone("hf_hub:runs/bets")
    refuse_gone("org/name@a/branch")
    monkeypatch.setattr(checkpoint_resolver, "try_to_load_from_cache", lambda *_, **__: "/cache/config.json")
    refuse_gone("runs/bets")  # that org, which is in the cache, beside a folder of its name


def test_what_needs_weights_is_not_told_to_start_from_scratch(offline, monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def hub(*_, **__):
        raise LocalEntryNotFoundError("away")

    monkeypatch.setattr(checkpoint_resolver, "hf_hub_download", hub)
    with pytest.raises(UserError, match="connect, or give a folder"):
        model_config("org/name")
    with pytest.raises(UserError, match="start from scratch"):
        locate("org/name", True, None)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_flag_that_is_misspelled_gets_an_offer(verb, capsys):
    """Before what is missing is named; of the flags that are no setting, too."""
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    of_it = {*re.findall(r"--[a-z][\w-]*", capsys.readouterr().out)} & {"--json", "--help", "--config", "--lr"}
    for flag in of_it:
        assert main([verb, wrong := f"{flag}{flag[-1]}"]) == 2
        assert f"{wrong!r}: did you mean {flag!r}" in capsys.readouterr().err
    assert "--help" in of_it and ("--json" in of_it) == (verb not in ("label", "demo"))
    assert main([verb, "--no-config"]) == 2 and "unknown " in capsys.readouterr().err


def test_a_misspelled_flag_is_told_from_others(capsys):
    assert main(["auto", "--datset", "photos", "--modle=x"]) == 2
    assert "unknown flag '--datset': did you mean '--dataset'" in capsys.readouterr().err
    assert main(["auto", "--datas", "photos", "--min"]) == 2  # an abbreviation, and what is missing
    assert "unknown" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, words",
    [
        ("auto --dataset photos --unlabeled-dataset raw", "`finetune` have it. Here .* in a folder unlabeled/ beside"),
        ("loop photos --unlabeled-dataset=raw", "no --unlabeled-dataset of loop.*unlabeled/"),
        ("evaluate --model m --dataset photos --labels t.csv", "beside the images, as labels.csv"),
        ("priors --dataset photos --labels t.csv --model m", "split --from TABLE .*--split split.json"),
    ],
)
def test_a_flag_of_other_verbs_says_what_to_do_here(argv, words, capsys):
    assert main(argv.split()) == 2
    said = capsys.readouterr().err
    assert re.search(words, said) and "did you mean" not in said


def test_auto_takes_its_data_bare_too(offline, capsys):
    """As `loop` and `predict` do."""
    for argv in (["photos", "--output-dir", "runs/best"], ["--output-dir", "runs/best", "--dataset", "photos"]):
        Path("runs/best/advice.html").touch()
        assert main(["auto", *argv]) == 2 and "a search is finished there" in capsys.readouterr().err
    assert main(["auto", "photso/"]) == 2 and "Did you mean 'photos'?" in capsys.readouterr().err
    assert main(["auto", "photos", "--dataset", "digits"]) == 2 and "given twice" in capsys.readouterr().err
    assert main(["auto", "--minutes", "3"]) == 2
    assert capsys.readouterr().err == (
        "error: auto needs DATA, such as a folder of images. See hf-lowlabel auto --help.\n"
    )


@pytest.mark.parametrize(
    "argv", ["evaluate --dataset photos", "predict photos", "export", "finetune --max-steps many", "label"]
)
def test_what_is_wrong_with_the_flags_is_one_line(argv, offline, capsys):
    """Without the list of all flags before it."""
    assert main(argv.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.endswith(f"See hf-lowlabel {argv.split()[0]} --help.\n")
    assert said.count("\n") == 1


def test_a_name_near_one_of_many_is_not_followed_by_all_of_them():
    many, few = [f"net{i}" for i in range(99)], ["cat", "dog"]
    assert str(unknown("model", "nett5", many)).endswith("? (99 are known)")
    assert "known: net0, " in str(unknown("model", "quite different", many))
    assert "known: cat, dog" in str(unknown("class", "cats", few))


@pytest.mark.parametrize("verb", ["auto", "loop"])
def test_help_says_where_images_without_a_label_go(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert "and unlabeled/ for the rest" in " ".join(capsys.readouterr().out.split())


def test_a_finished_search_is_refused_before_anything_is_loaded(offline, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs" / "best" / "advice.html").touch()
    loaded, usual = [], builtins.__import__

    def spy(name, globals=None, locals=None, fromlist=(), level=0):
        if level and globals and globals["__name__"].startswith("hf_lowlabel.cli"):
            loaded.append(name)
        return usual(name, globals, locals, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", spy)
    argv = "auto --dataset photos --output-dir".split()
    assert main([*argv, "runs/best"]) == 2
    said = capsys.readouterr().err
    whole = f"hf-lowlabel {shlex.join(argv[:-1])} --output-dir runs/best-2"
    assert f"All of it: `{whole}`" in said
    (tmp_path / "runs" / "best" / "features").mkdir()
    assert main(["auto", "--dataset", "photos", "--output-dir=runs/best", "--minutes", "60"]) == 2
    again = "--minutes 60 --features runs/best/features --output-dir runs/best-2"
    assert f"`hf-lowlabel auto --dataset photos {again}`" in capsys.readouterr().err
    assert "a search is finished there" in said and shlex.split(said.partition("such as ")[2])[0] == "runs/best-2."
    assert not any(name.startswith("ladder") for name in loaded)

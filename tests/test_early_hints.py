"""What is wrong with a command is said at once: before the Hub is asked, and before libraries and data are loaded."""

import builtins
import shlex

import pytest

from hf_lowlabel import UserError
from hf_lowlabel.cli import VERBS, main
from hf_lowlabel.models import checkpoint_resolver
from hf_lowlabel.models.checkpoint_resolver import locate, model_config, refuse_gone


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
        "select --dataset photos --budget 1 --output out --model runs/bets",
        "finetune --dataset photos --model runs/bets",
    ],
)
def test_verbs_say_that_it_is_gone(offline, capsys, argv):
    assert main(argv.split()) == 2
    said = capsys.readouterr().err
    assert "scratch" not in said and ("runs/bets" in said or "photos" in said)


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
    """Before what is missing is named."""
    assert main([verb, "--jsonn"]) == 2
    said = capsys.readouterr().err
    assert "'--jsonn'" in said and ("did you mean" in said or "--json" not in said.replace("--jsonn", ""))


def test_a_misspelled_flag_is_told_from_others(capsys):
    assert main(["auto", "--datset", "photos", "--modle=x"]) == 2
    assert "unknown flag '--datset': did you mean '--dataset'" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # an abbreviation, and what is missing
        main(["auto", "--datas", "photos", "--min"])
    assert "unknown" not in capsys.readouterr().err


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
    assert "came to its end" in said and shlex.split(said.partition("such as ")[2])[0] == "runs/best-2."
    assert not any(name.startswith("ladder") for name in loaded)

"""The command line: --help at once and without torch, one message for bad input, one flag for every setting."""

import dataclasses
import errno
import os
import subprocess
import sys
import time

import pytest

from hf_lowlabel.arguments import FinetuneConfig, PretrainConfig
from hf_lowlabel.cli import VERBS, key_values, main, parse_config
from hf_lowlabel.errors import UserError

HEAVY = ("torch", "transformers", "timm", "numpy", "datasets", "sklearn", "matplotlib")


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_needs_nothing_heavy(verb):
    code = (
        f"import sys; from hf_lowlabel.cli import main\ntry: main({[verb, '--help'] if verb else ['--help']!r})\nexcept SystemExit: pass\n"
        f"assert not {{m.partition('.')[0] for m in sys.modules}} & set({HEAVY!r}), 'heavy import'"
    )
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: hf-lowlabel" in done.stdout
    assert time.perf_counter() - begin < 60  # a hang, not a speed


@pytest.mark.parametrize("cls", [FinetuneConfig, PretrainConfig])
def test_every_setting_is_a_flag_with_help(cls, capsys):
    with pytest.raises(SystemExit):
        parse_config(cls, ["--help"])
    text = capsys.readouterr().out
    for f in dataclasses.fields(cls):
        assert f"--{f.name.replace('_', '-')}" in text
        assert f.metadata["help"]


def test_flags_win_over_the_file(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "dataset: digits\nlr: 1e-2\nnum-labels: 40\nmethod_args: {tau: 0.9, lambda_u: 2.0}\n"
    )
    config = parse_config(
        FinetuneConfig, ["--config", str(tmp_path / "a.yaml"), "--lr", "0.5", "--method-args", "tau=0.8"]
    )
    assert (
        config.learning_rate == 0.5 and config.num_labels == 40 and config.method_args == {"tau": 0.8, "lambda_u": 2.0}
    )


@pytest.mark.parametrize(
    "argv, words",
    [
        (["finetun"], "unknown verb 'finetun': did you mean 'finetune'"),
        (["finetune", "--dataset", "digits", "--method", "fixmach"], "did you mean 'fixmatch'"),
        (["finetune", "--datset", "digits"], "did you mean '--dataset'"),
        (["finetune", "--dataset", "digits", "--method", "cutmix"], "cutmix is a method for segmentation"),
        (["pretrain", "--dataset", "digits", "--method", "fixmatch"], "unknown pretrain method 'fixmatch'"),
        (["finetune", "--dataset", "digits", "--preset", "cifer"], "did you mean 'cifar'"),
        (["finetune", "--dataset", "digits", "--lr-scheduler-type", "cosin"], "did you mean 'cosine'"),
        (["finetune", "--num-labels", "40"], "no data given"),
        (["finetune", "--dataset", "digits", "--max-steps", "0"], "max_steps is 0; expected a number above 0"),
        (["finetune", "--dataset", "digits", "--lr", "-1"], "lr is -1.0; expected 0 or more"),
        (
            ["finetune", "--dataset", "digits", "--unlabeled-ratio", "0"],
            "unlabeled_ratio is 0; expected a number above 0",
        ),
        (["finetune", "--dataset", "digits", "--seed", "-1"], "seed is -1; expected 0 to 4294967295"),
        (["finetune", "--dataset", "digits", "--drop-rate", "1"], "drop_rate is 1.0; expected a share"),
        (["finetune", "--dataset", "digits", "--warmup-ratio", "1.5"], "warmup is 1.5; expected a share from 0 to 1"),
        (
            ["finetune", "--dataset", "digits", "--split", "s.json", "--validation", "3"],
            "found validation beside a split",
        ),
        (["finetune", "--config", "no-such.yaml"], "found no configuration file at no-such.yaml"),
        (["methods", "bylo"], "did you mean 'byol'"),
    ],
)
def test_bad_input_is_one_message(argv, words, capsys):
    assert main(argv) == 2
    text = capsys.readouterr().err
    assert words in text and text.startswith("error: ") and text.count("\n") == 1


@pytest.mark.parametrize(
    "line, words",
    [
        ("learning_rate: 1", "unknown key in the configuration 'learning_rate'"),
        ("lr: fast", "lr is 'fast' (str); expected float"),
        ("max_steps: 1.5", "max_steps is 1.5 (float); expected int"),
        ("- lr", "holds a list"),
        ("lr: [", "is not valid YAML"),
    ],
)
def test_bad_file_is_one_message(line, words, tmp_path):
    (tmp_path / "a.yaml").write_text(f"{line}\n")
    with pytest.raises(UserError) as e:
        parse_config(FinetuneConfig, ["--config", str(tmp_path / "a.yaml")])
    assert words in str(e.value)


def test_key_values():
    assert key_values(["tau=0.9", "rule-x=abc", "n=3"]) == {"tau": 0.9, "rule_x": "abc", "n": 3}
    with pytest.raises(UserError, match="expected KEY=VALUE"):
        key_values(["tau"])


def test_methods_lists_all_and_one(capsys):
    from hf_lowlabel.methods import METHODS

    assert main(["methods"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in METHODS)
    assert main(["methods", "fixmatch"]) == 0
    assert "tau=0.95" in capsys.readouterr().out


def test_split_then_no_overwrite(tmp_path, capsys):
    file = tmp_path / "split.json"
    argv = [
        "split",
        "--dataset",
        "digits",
        "--num-labels",
        "40",
        "--class-balanced",
        "--test-fraction",
        "0.2",
        "--output",
        str(file),
    ]
    assert main(argv) == 0 and "40 labeled" in capsys.readouterr().out
    before = file.read_bytes()
    assert main(argv) == 2 and file.read_bytes() == before


def test_what_a_disk_refuses_is_one_message(tmp_path, capsys, monkeypatch):
    """A disk that is full or may only be read; the superuser of a test machine may write anywhere else."""
    for number, words in ((errno.ENOSPC, "free some space"), (errno.EROFS, "another folder")):

        def refuse(*_, number=number):
            raise OSError(number, os.strerror(number), str(tmp_path / "x"))

        monkeypatch.setattr("hf_lowlabel.data.splits.os.fsync", refuse)
        assert (
            main(["split", "--dataset", "digits", "--num-labels", "40", "--output", str(tmp_path / "split.json")]) == 2
        )
        said = capsys.readouterr().err
        assert (
            said.startswith(f"error: {os.strerror(number)}: {tmp_path / 'x'}")
            and words in said
            and not list(tmp_path.iterdir())
        )


def test_env(capsys):
    assert main(["env"]) == 0
    assert "torch" in capsys.readouterr().out


@pytest.mark.parametrize(
    "given, steps, epochs",
    [
        ({}, 1000, None),
        ({"max_steps": 7}, 7, None),
        ({"epochs": 3.0}, None, 3.0),
        ({"preset": "target"}, None, 300),
        ({"preset": "target", "max_steps": 7}, 7, None),
        ({"preset": "target", "epochs": 2.0}, None, 2.0),
    ],
)
def test_length_in_steps_or_epochs(given, steps, epochs):
    """What the user says wins over a preset, a preset over the default, in either unit."""
    config = PretrainConfig(dataset="digits", **given).resolved()
    assert (config.max_steps, config.epochs) == (steps, epochs)
    assert config.resolved() == config

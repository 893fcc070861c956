"""The command line: --help at once and without torch, one message for bad input, one flag for every setting."""

import errno
import io
import logging
import os
import subprocess
import sys
import warnings

import pytest

from hf_lowlabel.arguments import Config, known_settings
from hf_lowlabel.cli import VERBS, main
from hf_lowlabel.cli.output import key_values
from hf_lowlabel.cli.train import parse_config, training_parser
from hf_lowlabel.errors import UserError
from hf_lowlabel.settings import resolve
from hf_lowlabel.tasks import TASKS, get_task
from hf_lowlabel.training.setup import logging_level

HEAVY = ("torch", "transformers", "timm", "numpy", "datasets", "sklearn", "matplotlib")


def test_help_needs_nothing_heavy():
    """One process for all verbs: what one of them imports is there after it."""
    code = f"""
import sys
from hf_lowlabel.cli import main
for verb in {["", *VERBS]!r}:
    try: main([verb, "--help"] if verb else ["--help"])
    except SystemExit: pass
    found = {{m.partition(".")[0] for m in sys.modules}} & set({HEAVY!r})
    assert not found, f"{{verb}} --help imports {{found}}"
    print("-- end --")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.split("-- end --\n")[:-1]
    assert len(others) == len(VERBS) and first.startswith("usage: hf-lowlabel")
    assert all(f"usage: hf-lowlabel {verb}" in said for verb, said in zip(VERBS, others, strict=True))
    lines = first.splitlines()  # the whole loop and every verb on one screen
    assert len(lines) <= 32 and max(map(len, lines)) <= 110
    assert {line.split()[0] for line in lines if line.startswith("  ")} >= {*VERBS}


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_every_setting_is_a_flag_with_help(verb, capsys):
    with pytest.raises(SystemExit):
        parse_config(verb, ["--help"])
    text = capsys.readouterr().out
    for name, setting in known_settings(verb).items():
        assert f"--{name.replace('_', '-')}" in text
        assert setting.meta["help"]
    for group in ("what is learned", "data", "model", "views", "training"):
        assert f"\n{group}:\n" in text


BOTH = """
-h --help --config --json --task --method --method-args --preset
--dataset --dataset-config --dataset-split --dataset-revision --image-column --label-column --mask-column --classes
--no-label --skip-missing --no-skip-missing --skip-conflicts --no-skip-conflicts --value-range --pages --no-pages
--plain-folders --no-plain-folders
--mask-format --mask-ignore --instances --no-instances --split --unlabeled-dataset --unlabeled-dataset-split --max-bad
--memory-budget --streaming
--no-streaming --workers
--model --model-revision --from-scratch --no-from-scratch --init-from --channels-last --no-channels-last --compile
--no-compile --lora-rank --lora-alpha
--image-size --stored-size --flip --no-flip --augment --min-scale --randaugment --no-randaugment --color --no-color
--max-steps --epochs --batch-size --gradient-accumulation-steps --optimizer --learning-rate --lr --weight-decay
--lr-scheduler-type --warmup-ratio --head-lr --max-grad-norm --precision --seed --output-dir --resume --no-resume
--save-steps --save-total-limit --logging-steps --eval-steps --max-bad-steps --report-to --device --dry-run --no-dry-run
--push-to-hub --hub-private --no-hub-private
""".split()
OWN = {
    "pretrain": "--sharded --no-sharded --output-stride --l2-sp".split(),
    "finetune": """
--num-labels --class-balanced --no-class-balanced --validation --test-fraction --test-dataset-split --architecture
--architecture-args --drop-rate --freeze --adapter-width --image-height --scale --rotation --window
--head-init --freeze-norm --no-freeze-norm --freeze-encoder --no-freeze-encoder
--layer-decay --unlabeled-ratio --early-stopping --metric-for-best-model --prior --prior-until --compare-supervised
""".split(),
}


@pytest.mark.parametrize("verb", OWN)
def test_the_flags_stay(verb):
    """A script of a user breaks when a flag goes: add to this list, and take from it in a new version only."""
    flags = [flag for action in training_parser(verb)._actions for flag in action.option_strings]
    assert sorted(flags) == sorted(BOTH + OWN[verb])


def test_flags_win_over_the_file(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "dataset: digits\nlearning_rate: 1e-2\nnum-labels: 40\nmethod_args: {tau: 0.9, lambda_u: 2.0}\n"
    )
    config = parse_config("finetune", ["--config", str(tmp_path / "a.yaml"), "--lr", "0.5", "--method-args", "tau=0.8"])
    assert (
        config.training.learning_rate == 0.5
        and config.data.num_labels == 40
        and config.method_args == {"tau": 0.8, "lambda_u": 2.0}
    )


@pytest.mark.parametrize(
    "argv, words",
    [
        (["finetun"], "unknown verb 'finetun': did you mean 'finetune'"),
        (["finetune", "--datset", "digits"], "did you mean '--dataset'"),
        (["finetune", "--dataset", "digits", "--method", "cutmix"], "cutmix is a method for segmentation"),
        (["pretrain", "--dataset", "digits", "--method", "fixmatch"], "unknown pretrain method 'fixmatch'"),
        (["finetune", "--dataset", "digits", "--preset", "cifer"], "did you mean 'cifar'"),
        (["finetune", "--dataset", "digits", "--lr-scheduler-type", "cosin"], "did you mean 'cosine'"),
        (["finetune", "--dataset", "digits", "--lr", "-1"], "learning_rate is -1.0. It must be at least 0."),
        (
            ["finetune", "--dataset", "digits", "--split", __file__, "--validation", "3"],
            "validation cannot be given beside a split",
        ),
        (["finetune", "--num-train-epochs", "3"], "--num-train-epochs is called --epochs here"),
        (["finetune", "--learning_rate", "0.1"], "--learning_rate is written --learning-rate."),
        (["finetune", "--max_steps=3"], "--max_steps is written --max-steps."),
        (["split", "--num_labels", "3"], "--num_labels is written --num-labels."),
        (["auto", "--test_fraction=0.2"], "--test_fraction is written --test-fraction."),
        (["pretrain", "--no_color"], "--no_color is written --no-color."),
        (["pretrain", "--num_labels", "3"], "--num_labels is a setting of finetune only"),
        (["pretrain", "--num-labels", "3"], "--num-labels is a setting of finetune only"),
        (["finetune", "digits"], "'digits' belongs to no setting"),
        (["finetune", "--config", "no-such.yaml"], "There is no no-such.yaml. Give the path of a YAML file"),
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
        ("learning: 1", "unknown key in the file"),
        ("lr: 1", "lr is called learning_rate here"),
        ("learning_rate: fast", "learning_rate is 'fast' (str). It must be a number or nothing."),
        ("max_steps: 1.5", "max_steps is 1.5 (float). It must be a whole number or nothing."),
        ("- lr", "holds a list"),
        ("lr: [", "is not valid YAML"),
    ],
)
def test_bad_file_is_one_message(line, words, tmp_path):
    (tmp_path / "a.yaml").write_text(f"{line}\n")
    with pytest.raises(UserError) as e:
        parse_config("finetune", ["--config", str(tmp_path / "a.yaml")])
    assert words in str(e.value) and "\n" not in str(e.value)


def test_key_values():
    assert key_values(["tau=0.9", "rule-x=abc", "n=3", "on=true", "k=None"]) == dict(
        tau=0.9, rule_x="abc", n=3, on=True, k=None
    )
    with pytest.raises(UserError, match="Write KEY=VALUE"):
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
    for number, words in ((errno.ENOSPC, "Free some space"), (errno.EROFS, "another folder")):

        def refuse(*_, number=number):
            raise OSError(number, os.strerror(number), str(tmp_path / "x"))

        monkeypatch.setattr("hf_lowlabel.files.os.fsync", refuse)
        assert (
            main(["split", "--dataset", "digits", "--num-labels", "40", "--output", str(tmp_path / "split.json")]) == 2
        )
        said = capsys.readouterr().err
        assert (
            said.startswith(f"error: {os.strerror(number)}: {tmp_path / 'x'}")
            and words in said
            and not list(tmp_path.iterdir())
        )


def test_what_a_copy_meets_is_one_message_too(tmp_path, capsys, monkeypatch):
    """`shutil.copyfile` raises an error without a number where it cannot write."""

    def copy(_):
        try:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(tmp_path / "b"))
        except OSError as error:
            raise FileNotFoundError("Directory does not exist") from error

    monkeypatch.setattr("hf_lowlabel.cli.info.env", copy)
    assert main(["env"]) == 2
    assert capsys.readouterr().err.startswith(f"error: Is a directory: {tmp_path / 'b'}. ")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "photos/a.png", None, str(tmp_path / "copy.png"))

    monkeypatch.setattr("hf_lowlabel.cli.info.env", full)
    assert main(["env"]) == 2  # and names the copy, which there is no room for
    assert capsys.readouterr().err.startswith(f"error: No space left on device: {tmp_path / 'copy.png'}. ")


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
    config = resolve(Config.from_flat("pretrain", {"dataset": "digits", **given}))
    assert (config.training.max_steps, config.training.epochs) == (steps, epochs)
    assert resolve(config) == config


def test_words_go_where_stderr_is_by_then(monkeypatch):
    """Notebooks exchange it, and the one that was there at first may be closed."""
    from hf_lowlabel.text import Stderr

    log, first, second = logging.getLogger("test_words"), io.StringIO(), io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log.addHandler(Stderr())
    monkeypatch.setattr("sys.stderr", first)
    log.warning("one")
    assert first.getvalue() == "one\n"
    first.close()
    monkeypatch.setattr("sys.stderr", second)
    log.warning("two")
    assert second.getvalue() == "two\n"


@pytest.fixture
def fresh_log(monkeypatch):
    """Makes the library's logger and the root as they are in a new process; and what is written to stderr."""
    log, root, stderr = logging.getLogger("hf_lowlabel"), logging.getLogger(), io.StringIO()
    before = log.level
    log.setLevel(logging.NOTSET)
    monkeypatch.setattr(log, "propagate", True)

    def made():  # during the test: what pytest captures is exchanged after the set-up
        monkeypatch.setattr("sys.stderr", stderr)
        for logger in (log, root):
            monkeypatch.setattr(logger, "handlers", [])
        return log, root, stderr

    yield made
    log.setLevel(before)


def test_lines_go_to_the_handlers_of_the_user_and_nowhere_else(fresh_log):
    """Else to stderr, plainly; handlers may come after the first run."""
    log, root, stderr = fresh_log()
    logging_level(True)
    log.info("one")
    assert stderr.getvalue() == "one\n"
    own = logging.StreamHandler(io.StringIO())
    own.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    root.addHandler(own)
    logging_level(True)
    log.info("two")
    log.warning("three")
    assert own.stream.getvalue() == "hf_lowlabel: two\nhf_lowlabel: three\n" and stderr.getvalue() == "one\n"


def test_a_level_that_is_set_stays(fresh_log):
    log, _, stderr = fresh_log()
    log.setLevel(logging.ERROR)
    logging_level(True)
    log.warning("one")
    assert stderr.getvalue() == ""
    log.setLevel(logging.DEBUG)
    logging_level(False)  # other processes of a launch say no more than warnings
    log.info("two")
    log.warning("three")
    assert stderr.getvalue() == "three\n"


def test_a_command_writes_to_stderr_once_whatever_other_packages_do(fresh_log):
    log, root, stderr = fresh_log()
    root.addHandler(logging.StreamHandler(stderr))
    main(["methods"])
    log.warning("one")
    assert stderr.getvalue() == "one\n"


def test_help_beside_a_method_shows_its_own_defaults(capsys):
    def said(*flags):
        with pytest.raises(SystemExit):
            main([*flags, "--help"])
        return " ".join(capsys.readouterr().out.split())

    plain, own = said("finetune"), said("finetune", "--method", "fixmatch")
    assert "default of" not in plain and "--method NAME --help" in plain
    assert "(default of fixmatch: 7)" in own and "(default of fixmatch: 0.03)" in own and "tau=0.95" in own
    other = said("finetune", "--task", "segmentation", "--method=cutmix")
    assert "(default of cutmix: 10)" in other
    assert "default of byol: lars" in said("pretrain", "--method", "byol")
    assert main(["finetune", "--method", "fixmash", "--help"]) == 2 and "fixmatch" in capsys.readouterr().err


def test_help_of_the_demo_names_its_stages(capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for task in TASKS:
        shown = get_task(task).demo
        assert f"{task}, {shown.num_labels} labels of {shown.dataset}: 1 {shown.stages[0].title}" in said
        assert all(stage.title in said for stage in shown.stages)


@pytest.mark.parametrize("verb", ["split", "auto", "loop", "finetune"])
def test_help_promises_no_equal_numbers_that_labels_do_not_divide_into(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "evenly from all classes" in said and "the same number" not in said


def test_a_warning_is_shown_once_per_command(monkeypatch):
    """`auto` opens its data twice, and told of each column twice."""
    shown = []

    def verb(argv):
        shown.extend(warnings.formatwarning(text, UserWarning, "file.py", 1) for text in ("a", "b", "a"))

    monkeypatch.setattr(f"hf_lowlabel.cli.{VERBS['auto'][0]}.auto", verb)
    assert main(["auto"]) == main(["auto"]) == 0
    assert shown == ["warning: a\n", "warning: b\n", ""] * 2

"""hf-lowlabel VERB: the command line. Everything heavy is imported inside the verb, so that --help answers at once."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import warnings

from ..errors import UserError, unknown
from ..text import say, speaks
from .first_process import by_the_first, is_first, launched
from .signals import EndBySignals

# verb -> the file of this folder that has a function of its name, and what it does
VERBS = {
    "auto": ("auto", "find the best model for images with a few labels, and estimate its accuracy"),
    "loop": ("loop", "label in rounds: choose, label on a page, auto, repeat; resumes after any stop"),
    "review": ("loop", "check doubtful labels, copies and outliers that auto found"),
    "pretrain": ("train", "adapt a pretrained network to your images, without labels"),
    "finetune": ("train", "train a classifier or a segmenter from a few labels and all your images"),
    "evaluate": ("use", "metrics of a model on labeled images"),
    "predict": ("use", "class and confidence for every image of a folder, as CSV or parquet; or masks"),
    "select": ("select", "choose which images are worth labeling; writes a folder to label them in"),
    "label": ("label", "label images in a browser: classes by keyboard in such a folder, or masks in any"),
    "split": (
        "select",
        "draw labeled and test images, or read finished labels; writes a manifest",
    ),
    "priors": ("select", "prior pseudo-labels of all images from the few labels, for finetune --prior"),
    "shrink": ("use", "copy a folder of large photos at a smaller size, which runs read many times faster"),
    "push": ("share", "put a finished run, or a manifest, on the Hugging Face Hub"),
    "export": ("share", "write a model as an ONNX or OpenVINO file, checked against it, with code to run it"),
    "report": ("share", "one HTML page about a run, or several side by side"),
    "demo-app": ("share", "open a page to try a model, or write it as a Space"),
    "demo": ("info", "all steps on 1,797 built-in digits, 40 of them labeled; or on shapes with masks"),
    "methods": ("info", "list the methods, their papers and settings"),
    "env": ("info", "versions and hardware, for a bug report"),
}

SHARED = ("auto", "pretrain", "finetune", "select", "priors")  # all processes of a launch work on these

_OTHER = "Check the path and the disk, or use another folder."

LOOP = """usage: hf-lowlabel VERB ... (many images, almost no labels)

from photos to a model (all of it, round after round: hf-lowlabel loop photos/):
  hf-lowlabel select --dataset photos/ --model resnet18 --budget 40 --output to_label/
  hf-lowlabel label to_label/                                  on a page, with the keyboard
  hf-lowlabel auto --dataset photos/ --labels to_label/ --output-dir runs/1
  hf-lowlabel label runs/1/to_label                            uncertain images; then auto again
  hf-lowlabel review runs/1                                    labels to check
  hf-lowlabel predict new/ --model runs/1 --output new.csv
  hf-lowlabel export runs/1                                    or push, report, demo-app
"""

_ADVICE = {  # what a disk refuses -> what helps
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free some space, or write to another folder."),
    errno.EROFS: "Write to another folder.",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM), "Give yourself the right to read and write there, or use another folder."
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Bad input prints one message and returns 2."""
    if argv is None and sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # file names are UTF-8
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal lacks is shown by its number
    argv = list(sys.argv[1:] if argv is None else argv)
    if not is_first() and (not set(argv[:1]) & VERBS.keys() or is_said(argv)):
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        say(f"{LOOP}\nverbs (hf-lowlabel VERB --help says more):")
        say("\n".join(f"  {verb:9} {text}" for verb, (_, text) in VERBS.items()))
        return 0
    alone = argv[0] in VERBS and argv[0] not in SHARED and launched() and not is_said(argv)
    return by_the_first(lambda: answer(argv)) if alone else answer(argv)


def answer(argv: list[str]) -> int:
    """Run a verb; the exit code of whatever becomes of it."""
    speaks(by_itself=True)
    said = set[str]()
    formatted, warnings.formatwarning = warnings.formatwarning, lambda message, *_: once(f"warning: {message}\n", said)
    try:
        if argv[0] not in VERBS:
            raise unknown("verb", argv[0], VERBS)
        with EndBySignals():
            file = importlib.import_module(f".{VERBS[argv[0]][0]}", __name__)
            return getattr(file, argv[0].replace("-", "_"))(argv[1:]) or 0
    except UserError as e:
        say(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except RuntimeError as e:
        processes = sys.modules.get("hf_lowlabel.distributed")  # not imported: nothing was shared out
        if processes is None or not processes.lost(e):
            raise
        say(
            "error: another process of this launch has ended, and this one cannot go on alone. Its message is "
            "above; start the same command again, a run with --resume.",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except OSError as e:
        of_disk = e if e.errno is not None else e.__cause__  # shutil.copyfile puts words in the place of an errno
        if not isinstance(of_disk, OSError) or of_disk.errno is None:
            raise
        full = of_disk.errno in (errno.ENOSPC, errno.EDQUOT)
        named = (full and of_disk.filename2) or of_disk.filename  # the copy is what there is no room for
        where = f": {named}" if named else ""
        say(f"error: {of_disk.strerror}{where}. {_ADVICE.get(of_disk.errno, _OTHER)}", file=sys.stderr)
        return 2
    finally:
        warnings.formatwarning = formatted


def once(text: str, said: set[str]) -> str:
    """A warning, and nothing where it was told: data are opened again, and libraries forget what Python has shown."""
    new = text not in said
    said.add(text)
    return text if new else ""


def is_said(argv: list[str]) -> bool:
    """Whether it only says what there is, which one process of a launch does without the others."""
    return argv[0] in ("methods", "env") or bool({"-h", "--help"} & set(argv))

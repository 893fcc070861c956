"""The kinds of faults there are, what a table calls them, and how much of each is done."""

from __future__ import annotations

from .moments import moments, signals, writers
from .resumes import resumes
from .sweeps import bad_arguments, bad_inputs, byte_flips, canaries, errors, kills

SWEEPS = {
    "bad input": bad_inputs,
    "bad argument": bad_arguments,
    "byte flip": byte_flips,
    "kill": kills,
    "error of the disk": errors,
    "canary": canaries,
    "resume": resumes,
    "signal": signals,
    "moment": moments,
    "two writers": writers,
}
WORDS = {
    "bad input": "an input file replaced by something else",
    "bad argument": "a bad number, path or name on the command line",
    "byte flip": "a flipped bit in a checksummed file",
    "kill": "killed during a write, then rerun",
    "error of the disk": "a disk error in a read or a write",
    "canary": "code in an untrusted file",
    "resume": "a training run killed and resumed, every method of every task: all tensors bit for bit",
    "signal": "SIGINT, SIGTERM or SIGHUP during a write, then the same command again",
    "moment": "the same in the middle of a step, an evaluation, a save, a page",
    "two writers": "the same command from another process in the middle of a write",
}


def sized(kind: str, share: float) -> dict[str, int]:
    """How much of a sweep is done: all of its defaults with a share of 1."""
    sizes = {
        "bad input": ("some", 6),
        "byte flip": ("count", 20),
        "kill": ("most", 12),
        "error of the disk": ("most", 4),
        "resume": ("most", 2),
        "signal": ("most", 3),
        "moment": ("most", 6),
        "two writers": ("most", 4),
    }
    name, size = sizes.get(kind, ("", 0))
    return {name: max(1, round(share * size))} if name else {}

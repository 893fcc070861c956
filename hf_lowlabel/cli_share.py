"""The verbs that show a finished run to others: push, report, demo-app."""
from __future__ import annotations

import argparse
import logging
import sys


def push(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="hf-lowlabel push",
        description="Put a finished run on the Hugging Face Hub in one commit: weights, configuration, card, split, metrics "
                    "and pictures (predictions.png shows test images). May be repeated. Log in with `hf auth login`, or set "
                    "HF_TOKEN.")  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="run folder, or a model folder with a card")
    parser.add_argument("repo_id", metavar="ORG/NAME", help="repository; made when there is none")
    parser.add_argument("--private", action="store_true", help="only for you and your organisation")
    parser.add_argument("--create-pr", action="store_true", help="as a pull request, where you may not write")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to (default: main)")
    args = parser.parse_args(argv)
    _plain_log()
    from .hub.push import push

    done = push(args.run, args.repo_id, args.private, args.create_pr, args.revision)
    print(done.pull_request or done.url)
    return 0


def _plain_log() -> None:
    """Plain lines to stderr, as the training verbs have them; without torch, which a push has no use for."""
    log = logging.getLogger("hf_lowlabel")
    if not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stderr))
    log.setLevel(logging.INFO)

"""The verbs that show a finished run to others: push, report, demo-app."""
from __future__ import annotations

import argparse
import logging
import sys

from .errors import UserError


def push(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="hf-lowlabel push",
        description="Put a finished run on the Hugging Face Hub in one commit: weights, configuration, card, split, metrics "
                    "and pictures (predictions.png shows test images). Or publish a split manifest, as a configuration of a "
                    "data set that others read with --split hub:ORG/NAME. May be repeated. Log in with `hf auth login`, or "
                    "set HF_TOKEN.")  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="run folder, model folder with a card, or a split manifest (.json)")
    parser.add_argument("repo_id", metavar="ORG/NAME", help="repository; made when there is none")
    parser.add_argument("--private", action="store_true", help="only for you and your organisation")
    parser.add_argument("--create-pr", action="store_true", help="as a pull request, where you may not write")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to (default: main)")
    parser.add_argument("--name", help="of a manifest: its configuration (default: data set, labels and seed)")
    parser.add_argument("--priors", metavar="FILE", help="of a manifest: prior pseudo-labels to publish with it")
    args = parser.parse_args(argv)
    _plain_log()
    common = dict(private=args.private, create_pr=args.create_pr, revision=args.revision)
    if args.run.endswith(".json"):
        from .hub.splits import push_split

        done = push_split(args.run, args.repo_id, name=args.name, priors=args.priors, **common)
    elif args.name or args.priors:
        raise UserError(f"found --name or --priors for {args.run}; expected them with a split manifest (.json) only; fix: leave them out")
    else:
        from .hub.push import push

        done = push(args.run, args.repo_id, **common)
    print(done.pull_request or done.url)
    return 0


def _plain_log() -> None:
    """Plain lines to stderr, as the training verbs have them; without torch, which a push has no use for."""
    log = logging.getLogger("hf_lowlabel")
    if not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stderr))
    log.setLevel(logging.INFO)

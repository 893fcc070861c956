"""What recipes share: flags, and settings of `pretrain` and `finetune` by the name of a data set or of a paper.

--dataset is one's own images, with labels as the library finds them. Beside --benchmark it is a local copy of that data
set, whose columns and splits have to be the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from hf_lowlabel import pretrain, text
from hf_lowlabel.arguments import Config, DataArguments
from hf_lowlabel.commands import slug
from hf_lowlabel.data.dataset import ImageDataset
from hf_lowlabel.distributed import barrier, is_main_process, rank
from hf_lowlabel.errors import UserError
from hf_lowlabel.files import read_json, write_json
from hf_lowlabel.methods import find
from hf_lowlabel.settings import resolve
from hf_lowlabel.tasks import get_task
from hf_lowlabel.tasks.data_classes import Chosen

DATA: dict[str, dict] = {
    "cifar10": dict(dataset="uoft-cs/cifar10"),
    "cifar100": dict(dataset="uoft-cs/cifar100", label_column="fine_label"),
    "svhn": dict(dataset="ufldl-stanford/svhn", dataset_config="cropped_digits", flip=False),
    "stl10": dict(dataset="jxie/stl10", unlabeled_dataset="jxie/stl10", unlabeled_dataset_split="unlabeled"),
    "imagenet": dict(dataset="ILSVRC/imagenet-1k", test_dataset_split="validation", streaming=True),
}
# the network and its image side in px that the literature trains from random weights
SMALL: dict[str, dict] = {
    "cifar10": dict(model="wrn_28_2", image_size=32),
    "cifar100": dict(model="wrn_28_8", image_size=32),
    "svhn": dict(model="wrn_28_2", image_size=32),
    "stl10": dict(model="wrn_37_2", image_size=96),
}
# flags that say where, and not what is computed
PLACE = {"output_dir", "resume", "dry_run", "workers", "published"}


def arguments(parser: argparse.ArgumentParser, names: list[str], output: str) -> None:
    """The flags that every recipe has; names: data sets to choose from, none for a recipe of several at once."""
    parser.set_defaults(published=False)
    if names:
        parser.add_argument(
            "--benchmark", action=Published, default=names[0], choices=names, help=f"data set (default: {names[0]})"
        )
        parser.add_argument("--dataset", help="your own images; beside --benchmark a copy of that data set")
        parser.add_argument(
            "--unlabeled-dataset", help="more images, without labels; of STL-10 a local copy of its own"
        )
    parser.add_argument("--seed", type=int, default=0, help="decides labels, weights and views")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    _ending(parser, output)


def mask_arguments(parser: argparse.ArgumentParser, output: str, *, batch: int, steps: int, epochs: int, seed: int = 0):
    """The flags that every recipe of segmentation ends with; epochs: of pretraining."""
    parser.add_argument("--model", default="resnet50", help="timm name, Hub id or folder with pretrained weights")
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights")
    parser.add_argument(
        "--pretrain-epochs", type=float, default=epochs, help="passes over all training images; 0 leaves it out"
    )
    parser.add_argument("--max-steps", type=int, default=steps, help="steps of finetuning")
    parser.add_argument("--batch-size", type=int, default=batch, help="labeled images per step, and as many unlabeled")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--seed", type=int, default=seed)
    _ending(parser, output)


def _ending(parser: argparse.ArgumentParser, output: str) -> None:
    parser.add_argument("--output-dir", default=output)
    parser.add_argument("--resume", action="store_true", help="go on where an earlier launch stopped")
    parser.add_argument("--dry-run", action="store_true", help="two steps of each stage; nothing is kept")


def launch(main: Callable[[], None]) -> None:
    """Run a recipe; bad input ends it with one sentence."""
    try:
        main()
    except UserError as error:
        raise SystemExit(text.printable(f"error: {error}")) from None


def say(line: str) -> None:
    """`print` on the first process of a launch."""
    if is_main_process():
        text.say(line, flush=True)


def count(given: str) -> int:
    """The type of a flag for a whole number above 0."""
    if not given.isdecimal() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"found {given}, expected a whole number above 0")
    return int(given)


def passes(given: str) -> float:
    """The type of a flag for a number above 0."""
    if not 0 < (value := float(given)) < float("inf"):
        raise argparse.ArgumentTypeError(f"found {given}, expected a number above 0")
    return value


class Published(argparse.Action):
    """--benchmark, which tells a copy of a published data set from one's own images."""

    def __call__(self, parser, namespace, values, option_string=None):
        namespace.benchmark, namespace.published = values, True


def is_own(args: argparse.Namespace) -> bool:
    """Whether the images are the user's own."""
    return bool(args.dataset) and not args.published


def name_of(args: argparse.Namespace) -> str:
    """The data set, in names of folders and in results."""
    return f"own-{slug(args.dataset)}" if is_own(args) else args.benchmark


def folder_of(args: argparse.Namespace, *names: object, stages: tuple[str, ...] = ()) -> Path:
    """The folder of the runs of these data, this start and this seed.

    A note in it keeps the flags, so that a run of other ones is never gone on with, nor taken for one of these. It says
    nothing where bad flags have left no run.

    Args:
        args: the flags of a recipe.
        names: what the folder is called after, beside start and seed.
        stages: flags that stand in the names of its run folders, or that a run compares itself when it is resumed.

    Returns:
        The folder, which a dry run does not make.

    Raises:
        UserError: its runs are of other flags.
    """
    given = {name: value for name, value in vars(args).items() if name not in PLACE}
    start = next((slug(given[name]) for name in ("refine", "backbone", "model") if given.get(name)), None)
    scratch = "from-scratch" if given.get("from_scratch") else None
    folder = Path(
        args.output_dir, "-".join(str(part) for part in (*names, start, scratch, args.seed) if part is not None)
    )
    if args.dry_run:
        return folder
    given = json.loads(json.dumps({name: value for name, value in given.items() if name not in stages}))
    note = folder / "recipe.json"
    known = read_json(note) if note.is_file() and any(path.is_dir() for path in folder.iterdir()) else given
    if other := [name for name in given if known.get(name) != given[name]]:
        flag, was, now = f"--{other[0].replace('_', '-')}", known.get(other[0]), given[other[0]]
        raise UserError(f"{folder} holds runs of {flag} {was}, and this is {now}. Give {was}, or another --output-dir.")
    if rank() == 0:
        write_json(note, given)
    return folder


def common(args: argparse.Namespace, benchmark: str | None = None) -> dict:
    """Settings that all stages of a recipe share; benchmark: of a recipe of several data sets."""
    data = dict(DATA[benchmark or args.benchmark])
    if benchmark is None:
        if args.dataset:
            data = dict({} if is_own(args) else data, dataset=args.dataset, dataset_config=None)
        if args.unlabeled_dataset:
            data |= dict(unlabeled_dataset=args.unlabeled_dataset)
    return dict(data, **run_settings(args))


def length(method: str, preset: str | None, unit: str, given: float | None, usual: float) -> dict:
    """The setting of a run's length: what is `given`, else that of the preset, else the usual one.

    Args:
        method: of finetuning or pretraining.
        preset: its preset, whose own length needs no setting.
        unit: "max_steps" or "epochs".
        given: by the user.
        usual: for presets without a length.
    """
    if given is None and {"epochs", "max_steps"} & find(method).presets.get(preset, {}).keys():
        return {}
    return {unit: usual if given is None else given}


def run_settings(args: argparse.Namespace) -> dict:
    """Settings that say how the stages run, whatever the data."""
    return dict(seed=args.seed, precision=args.precision, resume=args.resume, dry_run=args.dry_run)


def held_out(args: argparse.Namespace, folder: Path) -> dict:
    """Settings that keep from pretraining those of one's own images that `finetune` will draw to test on."""
    if not is_own(args) or args.dry_run:
        return {}
    manifest = folder / "held-out.json"
    if rank() == 0 and not manifest.is_file():  # the test set is one of the seed, whatever is labeled
        _chosen("classification", data_of(common(args)), args.seed).split.save(manifest)
    barrier()
    return dict(split=str(manifest))


def for_pretrain(settings: dict) -> dict:
    """The part of them that `pretrain` takes."""
    return {k: v for k, v in settings.items() if k != "test_dataset_split"}


def check(**settings) -> Chosen:
    """Which images `finetune` would learn from and test on, with these settings.

    Raises:
        UserError: what `finetune` would refuse of names, numbers and labels, before that which takes days comes first.
    """
    config = resolve(Config.from_flat("finetune", settings))
    return _chosen(config.task, config.data, config.training.seed)


def _chosen(task: str, data: DataArguments, seed: int) -> Chosen:
    """What a run will choose of these data, without its warnings: the run itself says them."""
    verb, log = get_task(task), logging.getLogger("hf_lowlabel")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.disabled = True
        try:
            return verb.choose_split(data, seed, verb.open(data))
        finally:
            log.disabled = False


def pretrained(start: dict, then: dict, **settings) -> dict:
    """`start` of finetuning after `pretrain` with these settings: its network, or the same after a dry run.

    then: all other settings of that finetuning, which are checked first.
    """
    check(**start, **then)
    run = pretrain(**start, **settings)
    return start if settings["dry_run"] else dict(model=str(run.folder))


def without_strong_views(method: str) -> dict:
    """A method of segmentation without strong views: CutMix sees none, neither does its baseline."""
    return dict(method=method, method_args=dict(strong=False) if method == "supervised" else {})


def before_masks(args: argparse.Namespace, folder: Path, method: str, then: dict, **settings) -> dict:
    """What finetuning on masks starts from: the network, after `method` on all images unless --pretrain-epochs is 0.

    then: all other settings of that finetuning.
    """
    start = dict(model=args.model, from_scratch=args.from_scratch)
    if not args.pretrain_epochs:
        return start
    more = dict(preset="target", epochs=args.pretrain_epochs, output_dir=str(folder / method))
    return pretrained(start, then, **settings, **more, method=method)


def data_of(settings: dict) -> DataArguments:
    """Where the images of these settings come from."""
    known = {field.name for field in fields(DataArguments)}
    return DataArguments(**{name: value for name, value in settings.items() if name in known})


def source_of(settings: dict) -> ImageDataset:
    """The images of these settings, opened as `finetune` opens them."""
    return get_task("classification").open(data_of(settings))

"""Everything that is done to the verbs, as cases: what was tried, and what did not hold.

A case holds when the command ends in time without a traceback, by itself or killed by us, and where it can be told:
when what it read was damaged it said so, or its answer is what it is without the damage; and after a kill the same
command finishes, with the same result, and leaves nothing half.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .bad_files import changes, flips, restore
from .injector import ERRORS, KILL, READ, WRITE, Fault, Outcome
from .sandbox import READS, VERBS, clear, content, remove, run

NEVER_SAME = re.compile(rb'"(seconds|steps_per_second|peak_memory_gib|time)": [\d.]+')  # in what a run leaves
MORE = ("checkpoint_path", "adapter", "eps")
DATED = ("finetune", "pretrain", "knn", "probe", "auto", "auto masks", "loop")  # cards and records say when, and how
DATED += ("label", "export")  # so does a history of labels; a graph numbers its nodes
RESULTS = ("model.safetensors", "config.json", "metrics.json", "split.json", "priors.safetensors", "advice.json")
RESULTS += ("labels.csv", "classes.txt", "selection.json", "preprocessing.json")


class Case(NamedTuple):
    kind: str
    name: str
    wrong: str  # "" where it held


def bad_inputs(
    box: Path, some: int | None = 6, only: Sequence[str] = (), by: Sequence[str] = tuple(VERBS)
) -> Iterator[Case]:
    """Each file that is read becomes other things, `some` of them inside."""
    kept = box.with_name(f"{box.name}-kept")
    shutil.copytree(box, kept, symlinks=True)
    for file, verbs in READS.items():
        if not (kept / file).is_file() or (only and file not in only):
            continue
        for verb in (verb for verb in verbs if verb in by):
            for what, change in changes(kept / file, some=some):
                change(box / file)
                yield Case("bad input", f"{verb}: {file} {what}", run(box, VERBS[verb][0], seconds=30).verdict)
                restore(box / file, kept / file)
                clear(box)
    shutil.rmtree(kept)


def byte_flips(box: Path, count: int = 20, only: Sequence[str] = ()) -> Iterator[Case]:
    """A bit of a file is another: it is said, or makes no difference."""
    for file, verbs in READS.items():
        path = box / file
        if not path.is_file() or not file.startswith(("run/", "seg/", "to_label/features", "knn/")):
            continue  # pictures and what people write carry no checksum
        if only and file not in only:
            continue
        command, left = VERBS[verbs[0]]
        good, whole = run(box, command), path.read_bytes()
        answer = said(good, box, left)
        clear(box)
        for place, changed in flips(path, count):
            path.write_bytes(changed)
            done = run(box, command)
            same = done.code == 0 and said(done, box, left) == answer
            told = done.code not in (0, None) or "anew" in done.text
            yield Case("byte flip", f"{file} byte {place}", done.verdict or ("" if told or same else "silent"))
            clear(box)
        path.write_bytes(whole)


def said(done: Outcome, box: Path, left: str) -> tuple:
    return done.code, {k: NEVER_SAME.sub(b"", v) for k, v in content(box / left).items() if "checkpoints" not in k}


def kills(box: Path, verbs: Sequence[str] = tuple(VERBS), most: int = 12, seed: int = 0) -> Iterator[Case]:
    """SIGKILL at up to `most` of the calls by which a verb writes, its first and last among them."""
    for verb in verbs:
        command, left = VERBS[verb]
        whole = run(box, command)
        if whole.code or verb == "pretrain --config":
            continue
        answer = said(whole, box, left)
        again = to_go_on(command)
        clear(box)
        for at in spread(whole.touched, most, seed):
            wrong = run(box, command, Fault(at, KILL)).verdict or finished(box, command, again, left, answer, verb)
            yield Case("kill", f"{verb} at write {at} of {whole.touched}", wrong)
            clear(box)


def to_go_on(command: str) -> str:
    """The flag with which a verb goes on over what is there; those that are not named here go on by themselves."""
    return command + {"finetune": " --resume", "pretrain": " --resume", "predict": " --overwrite"}.get(
        command.split()[0], ""
    )


def finished(box: Path, command: str, again: str, left: str, answer: tuple, verb: str) -> str:
    """What is wrong after the same command is given again, to go on where something is there: "" for nothing."""
    done = run(box, command)
    if done.code == 2 and any(words in done.text for words in ("already", "exists", "not empty")):
        done = run(box, again) if again != command else done
    there = said(done, box, left)
    complete = there[1] == answer[1] or verb in DATED and same_results(there[1], answer[1])
    half = [p.name for p in box.rglob(".*") if p.name.endswith(".part") or ".model." in p.name or p.name == ".begun"]
    wrong = done.verdict or ("" if complete else f"not the same: {differing(there[1], answer[1])} {done.text[-200:]}")
    return wrong or (f"left {half}" if half else "")


def same_results(a: dict[str, bytes], b: dict[str, bytes]) -> bool:
    return all(a.get(name) == b[name] for name in b if name.rpartition("/")[2] in RESULTS) and not b.keys() - a.keys()


def differing(a: dict[str, bytes], b: dict[str, bytes]) -> list[str]:
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))[:5]


def errors(box: Path, verbs: Sequence[str] = tuple(VERBS), most: int = 4, seed: int = 0) -> Iterator[Case]:
    """Each error of a disk at up to `most` of the calls by which a verb reads and writes."""
    for verb in verbs:
        command = VERBS[verb][0]
        for kind in (READ, WRITE):
            number = run(box, command, Fault(0, errno.EIO, kind)).touched
            clear(box)
            for error in ERRORS:
                for at in spread(number, most, seed + error):
                    done = run(box, command, Fault(at, error, kind))
                    name = f"{verb}: {errno.errorcode[error]} at {kind} {at} of {number}"
                    yield Case(
                        "error of the disk", name, done.verdict or ("" if done.code in (0, 2) else str(done.code))
                    )
                    clear(box)


def spread(number: int, most: int, seed: int) -> list[int]:
    """Up to `most` of 1..number; of two and more the first and the last are among them."""
    if number <= most:
        return list(range(1, number + 1))
    if most == 1:
        return [random.Random(seed).randint(1, number)]
    inner = random.Random(seed).sample(range(2, number), max(most - 2, 0))
    return sorted({1, number, *inner})


ARGUMENTS = """
predict photos --model run --window 0|predict photos --model run --batch-size 0|predict photos --model run --top 0
predict photos --model run --top -1|predict photos --model run --output out|predict nothing --model run
predict photos --model nothing|predict photos --model .|predict photos --model run --device gpu
shrink nothing --output-dir out|shrink photos --output-dir photos/small|shrink photos --side 0 --output-dir out
shrink masked --output-dir out|shrink photos --output-dir run|predict /dev/zero --model run
predict fifo --model run|predict photos --model run --task flight
evaluate --model run --dataset photos --window 0|evaluate --model run --dataset fifo|evaluate --model run --dataset .
evaluate --model seg --dataset masked --window -1|evaluate --model run --dataset photos --split fifo
evaluate --model run --dataset photos --max-bad nan|evaluate --model run --dataset /dev/null
evaluate --model run --dataset photos --dataset-split nothing|evaluate --model run --dataset nosuchfolder/x
label to_label --port -1|label to_label --port 70000|label photos|label nothing|label fifo
demo-app run --port -1|demo-app run --port 70000|demo-app pre|demo-app photos|demo-app nothing
split --dataset photos --test-fraction nan --output out.json|split --dataset photos --validation -1 --output out.json
split --dataset photos --num-labels 0 --output out.json|split --dataset photos --num-labels -3 --output out.json
split --dataset photos --test-fraction 2 --output out.json|split --dataset fifo --output out.json
split --from fifo --output out.json|split --from photos --output out.json|split --dataset photos --output photos
split --dataset photos --seed -1 --output out.json|split --dataset photos --output /proc/nothing/out.json
split --dataset photos --num-labels 6 --output split.json/out.json|split --from /dev/zero --output out.json
select --model pre --dataset photos --budget 0 --output out|select --model pre --dataset photos --budget -1 --output o
select --model pre --dataset photos --budget 3 --output split.json
select --model pre --dataset photos --budget 3 --output out --image-size 0
select --model pre --dataset photos --budget 3 --output out --image-size -8
select --model pre --dataset photos --budget 3 --output out --seed -1
select --model pre --dataset photos --budget 3 --output out --features fifo
select --model pre --dataset photos --budget 3 --output out --features photos
select --model pre --dataset photos --budget 3 --output out --classes /dev/zero
select --model fifo --dataset photos --budget 3 --output out
priors --model pre --dataset photos --split split.json --neighbors 0 --propagation label-spreading --output out.s
priors --model pre --dataset photos --split split.json --clusters 0 --output out.s
priors --model pre --dataset photos --split split.json --clusters -2 --output out.s
priors --model pre --dataset photos --split split.json --clusters 10000 --output out.s
priors --model pre --dataset photos --split fifo --output out.s
report nothing|report fifo|report run --output out|report run run|report run --output split.json/out.html
push run a|push run a/b/c|push nothing org/name|push photos org/name|push fifo org/name
methods nothing|train|demo --task nothing|report --table photos
auto --dataset photos --model nothing --output-dir new/out|auto --dataset photos --model pre --num-labels 1
auto --dataset photos --model pre --minutes 0|auto --dataset photos --model pre --minutes nan|auto --dataset fifo
auto --dataset photos --split fifo|auto --dataset photos --labels /dev/zero|auto --dataset photos --model fifo
auto --dataset photos --model pre --to-label -1|auto --dataset photos --model pre --features split.json
loop photos --model nothing --output-dir new/out|loop photos --model pre --per-round 0|loop fifo|loop photos --budget -1
loop photos --model pre --num-labels 1 --output-dir new/out|loop photos --model pre --output-dir split.json
loop photos --model pre --minutes nan --output-dir new/out|loop photos --model pre --labels fifo --output-dir new/out
review nothing|review run|review fifo|review best --output split.json|review best --output photos
export nothing|export pre --output new/out|export run --images fifo --output new/out|export run --output split.json
export run --images split.json --output new/out|demo --num-labels 0 --output-dir new|demo --num-labels 3
select --model pre --dataset photos --budget 30 --output new/out|split --dataset photos --num-labels 99 --output o
evaluate --model run --dataset masked/images --output new/out|predict photos --model pre --output new/out.csv
finetune --dataset digits --num-labels 3 --class-balanced --model cnn6_16 --from-scratch --output-dir new/out
pretrain --config fifo|pretrain --config /dev/zero|pretrain --config photos|pretrain --config run/log.jsonl
""".replace("\n", "|")
NUMBERS = """learning_rate weight_decay max_grad_norm head_lr warmup_ratio prior_until max_bad drop_rate epochs
lora_alpha layer_decay max_steps batch_size unlabeled_ratio seed workers memory_budget image_size stored_size save_steps
logging_steps eval_steps validation test_fraction num_labels freeze lora_rank adapter_width early_stopping max_bad_steps
gradient_accumulation_steps save_total_limit min_scale""".split()
PATHS = "dataset split prior init_from compare_supervised unlabeled_dataset model".split()


def bad_arguments(box: Path) -> Iterator[Case]:
    """Numbers that are none, sizes below zero, FIFOs and devices in the place of files and folders."""
    if not (box / "fifo").exists():
        os.mkfifo(box / "fifo")
    commands = [c for c in ARGUMENTS.split("|") if c]
    base = VERBS["finetune"][0]
    for name in NUMBERS:
        flag = f"--{name.replace('_', '-')}"
        commands += [f"{base} {flag}={value}" for value in ("nan", "inf", "-inf", "-1", "1e400", "x", "")]
    for name in PATHS:
        commands += [
            f"{base} --{name.replace('_', '-')} {value}" for value in ("fifo", "/dev/zero", "/", "nothing/x", "")
        ]
    before = set(box.iterdir())
    for command in commands:
        done = run(box, command.split(" "), seconds=30)
        left = sorted(path.name for path in set(box.iterdir()) - before)
        wrong = done.verdict or ("" if done.code else "was taken") or (f"left {left}" if left else "")
        yield Case("bad argument", command[-90:], wrong)
        for name in left:
            remove(box / name)
    (box / "fifo").unlink()


def canaries(
    box: Path, verbs: Sequence[str] = tuple(VERBS), names: Sequence[str] = ("code", "auto_map", "pickles", *MORE)
) -> Iterator[Case]:
    """Code in every place where a file of somebody else's may hold some: none of it runs."""
    mark = box / "canary"
    kept = box.with_name(f"{box.name}-kept")
    shutil.copytree(box, kept, symlinks=True)
    for name in names:
        plant = CANARIES[name]
        for folder in ("run", "seg", "pre"):
            if (box / folder).is_dir():
                plant(box / folder, mark)
        plant_picture = box / "photos" / "dark" / "0.png"
        if name == "eps":
            plant_picture.write_text(EPS.format(mark=mark))
        for verb in verbs:
            done = run(box, VERBS[verb][0])
            wrong = "the canary sang" if mark.exists() else done.verdict
            yield Case("canary", f"{name} in {verb}", wrong)
            mark.unlink(missing_ok=True)
            clear(box)
        remove(box)
        shutil.copytree(kept, box, symlinks=True)
    shutil.rmtree(kept)


class Evil:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


EPS = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 24\n({mark}) (w) file closefile\nshowpage\n%%EOF\n"
AUTO = ("AutoConfig", "AutoModel", "AutoModelForImageClassification", "AutoModelForSemanticSegmentation")


def edit(path: Path, **values: object) -> None:
    if path.is_file():
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        seal = json.loads((path.parent / "checksums.json").read_text())
        seal.pop(path.name, None)
        (path.parent / "checksums.json").write_text(json.dumps(seal))


def code(folder: Path, mark: Path) -> None:
    for name in ("__init__", "evil", "app", "segmenter", "configuration_segmenter", "sitecustomize", folder.name):
        (folder / f"{name}.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")


def auto_map(folder: Path, mark: Path) -> None:
    code(folder, mark)
    for file in ("config.json", "preprocessor_config.json"):
        edit(folder / file, auto_map=dict.fromkeys([*AUTO, "AutoImageProcessor"], "evil.Evil"), custom_pipelines={})


def pickles(folder: Path, mark: Path) -> None:
    for name in ("pytorch_model.bin", "model.pt", "model.ckpt", "adapter_model.bin", "optimizer.pth"):
        (folder / name).write_bytes(pickle.dumps(Evil(mark)))
    (folder / "model.safetensors").unlink()


def leads_out(folder: Path, mark: Path) -> None:
    """Arguments of the architecture that read a pickle."""
    (folder / "evil.pth").write_bytes(pickle.dumps(Evil(mark)))
    for key in ("model_args", "architecture_args"):
        values = json.loads((folder / "config.json").read_text())
        if isinstance(values.get(key), dict):
            edit(folder / "config.json", **{key: {**values[key], "checkpoint_path": str(folder / "evil.pth")}})


def adapter(folder: Path, mark: Path) -> None:
    said = {"base_model_name_or_path": "evil/model", "peft_type": "LORA", "r": 1, "target_modules": ["x"]}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Evil(mark)))


def nothing(folder: Path, mark: Path) -> None:
    """For the one that lies elsewhere."""


CANARIES = {
    "code": code,
    "auto_map": auto_map,
    "pickles": pickles,
    "checkpoint_path": leads_out,
    "adapter": adapter,
    "eps": nothing,
}

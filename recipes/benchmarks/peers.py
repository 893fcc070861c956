"""Images per second of whole training steps, against the same method as it is usually written: image by image.

    python recipes/benchmarks/peers.py --case fixmatch                     # WRN-28-2, 32 px, 8 + 2 x 56, one CPU thread
    python recipes/benchmarks/peers.py --case byol --size 64               # ResNet-18; needs pip install '.[peers]'
    python recipes/benchmarks/peers.py --case byol --size 224 --batch-size 256 --workers 16 --precision bf16   # a GPU

The peer of FixMatch is plain PyTorch in the form of the public reimplementations: PIL images through per-image
transforms in two DataLoaders, one forward of both, SGD, a loop over the weights for their average, `.item()` at every
step. The peer of BYOL is lightly: its transform, heads, loss and momentum update. Both sides start from decoded images
in memory, share network, batch and precision, and alternate in rounds; compared are medians. On a CPU without workers,
seconds are those of the processor. Cost: two minutes on a CPU.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from step import generated
from timing import clock, report
from torch.utils.data import DataLoader, Dataset
from views import pil_pipeline

from hf_lowlabel import Callback, finetune, pretrain
from hf_lowlabel.models import create_backbone, create_classifier

WARM = 2  # steps of a round that are not counted


class PerImage(Dataset):
    """(views of one image, its label), made when it is asked for."""

    def __init__(self, images: list[Image.Image], views: list[Callable]):
        self.images, self.views = images, views

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, i: int):
        image = self.images[i * 7919 % len(self.images)]
        return [view(image) for view in self.views], i % 10


def loader(data: Dataset, batch_size: int, workers: int):
    return iter(
        DataLoader(
            data,
            batch_size=batch_size,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
        )
    )


def fixmatch_peer(args, images, device) -> Callable[[], None]:
    model = create_classifier(args.model, num_labels=10, class_names=[str(k) for k in range(10)], pretrained=False).to(
        device
    )
    teacher = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4)
    weak, strong = (pil_pipeline(kind, args.size) for kind in ("weak", "strong"))
    labeled = loader(PerImage(images, [weak]), args.batch_size, args.workers)
    unlabeled = loader(PerImage(images, [weak, strong]), args.batch_size * args.unlabeled_ratio, args.workers)

    def step() -> None:
        ([x], y), ([w, s], _) = next(labeled), next(unlabeled)
        x, y = torch.cat([x, w, s]).to(device, non_blocking=True), y.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
            logits = model(x).logits.float()
        p, w, s = logits.split([len(y), len(w), len(s)])
        confidence, target = w.detach().softmax(1).max(1)
        loss = F.cross_entropy(p, y) + ((confidence >= 0.95) * F.cross_entropy(s, target, reduction="none")).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mine, theirs in zip(teacher.state_dict().values(), model.state_dict().values(), strict=True):
                mine.copy_(0.999 * mine + 0.001 * theirs if mine.is_floating_point() else theirs)
        loss.item()

    return step


def byol_peer(args, images, device) -> Callable[[], None]:
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import update_momentum
    from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform

    encoder = create_backbone(args.model, pretrained=False)
    online = torch.nn.ModuleList([encoder, BYOLProjectionHead(encoder.num_features)]).to(device)
    predictor = BYOLPredictionHead().to(device)
    teacher = copy.deepcopy(online).requires_grad_(False)
    optimizer = torch.optim.SGD([*online.parameters(), *predictor.parameters()], lr=0.1, momentum=0.9)
    blur = {} if args.size >= 64 else {"gaussian_blur": 0.0}  # ours does not blur small images either
    transform = BYOLTransform(BYOLView1Transform(args.size, **blur), BYOLView2Transform(args.size, **blur))
    batches = loader(PerImage(images, [lambda image: transform(image)]), args.batch_size, args.workers)
    criterion = NegativeCosineSimilarity()

    def project(parts, x):
        return parts[1](parts[0].pooled(x))

    def step() -> None:
        ([views], _) = next(batches)
        a, b = (v.to(device, non_blocking=True) for v in views)
        update_momentum(online, teacher, 0.99)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
            p, q = predictor(project(online, a)), predictor(project(online, b))
            with torch.no_grad():
                s, t = project(teacher, a), project(teacher, b)
            loss = 0.5 * (criterion(p, t) + criterion(q, s))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def peer_round(step: Callable[[], None], steps: int, now: Callable[[], float]) -> float:
    """Seconds a step."""
    for _ in range(WARM):
        step()
    begin = now()
    for _ in range(steps):
        step()
    return (now() - begin) / steps


class Clock(Callback):
    """The time at the end of the warm steps and of the last."""

    def __init__(self, now: Callable[[], float]):
        self.now, self.times = now, []

    def on_step_end(self, state, scalars) -> None:
        if state.step in (WARM, state.max_steps):
            self.times.append(self.now())


def our_round(args, source, now: Callable[[], float]) -> float:
    """Seconds a step of `finetune` or `pretrain`, from the end of the warm steps to the end of the last."""
    watch = Clock(now)
    settings = dict(
        dataset=source,
        model=args.model,
        from_scratch=True,
        image_size=args.size,
        stored_size=args.size,
        method=args.case,
        batch_size=args.batch_size,
        max_steps=args.steps + WARM,
        precision=args.precision,
        channels_last=args.channels_last,
        eval_steps=10**6,
        logging_steps=10**6,
        save_steps=10**6,
    )
    if args.case == "fixmatch":
        settings |= dict(num_labels=40, unlabeled_ratio=args.unlabeled_ratio)
    train = finetune if args.case == "fixmatch" else pretrain
    with tempfile.TemporaryDirectory() as folder:
        train(**settings, output_dir=folder, callbacks=[watch])
    return (watch.times[-1] - watch.times[0]) / args.steps


def parse(flags: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("fixmatch", "byol"), default="fixmatch")
    parser.add_argument("--model", help="default: wrn_28_2, for byol resnet18")
    parser.add_argument("--size", type=int, default=32, help="px")
    parser.add_argument("--batch-size", type=int, help="default: 8 labeled images, for byol 32 images")
    parser.add_argument("--unlabeled-ratio", type=int, default=7)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument(
        "--channels-last", action=argparse.BooleanOptionalAction, help="our memory layout; else the faster one"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes of the peer's loaders")
    parser.add_argument("--steps", type=int, default=6, help="steps timed in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--pool", type=int, default=1000, help="images in memory")
    parser.add_argument("--output", help="JSON file for the result")
    args = parser.parse_args(flags)
    args.model = args.model or ("wrn_28_2" if args.case == "fixmatch" else "resnet18")
    args.batch_size = args.batch_size or (8 if args.case == "fixmatch" else 32)
    return args


def measure(args: argparse.Namespace) -> dict:
    """Seconds a step of both sides, images per second and their ratio."""
    torch.set_num_threads(args.threads)
    source = generated(args.size, args.pool)
    images = [source.image(i).convert("RGB") for i in range(args.pool)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step = (fixmatch_peer if args.case == "fixmatch" else byol_peer)(args, images, device)
    now = (
        time.perf_counter if args.workers and device.type == "cpu" else clock
    )  # workers' seconds are not this process's
    pairs = [(our_round(args, source, now), peer_round(step, args.steps, now)) for _ in range(args.rounds)]
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    per_step = args.batch_size * (1 + args.unlabeled_ratio) if args.case == "fixmatch" else args.batch_size
    return {
        "ours_s": mine,
        "peer_s": theirs,
        "ratio": theirs / mine,
        "ours_images_per_s": per_step / mine,
        "peer_images_per_s": per_step / theirs,
        "rounds": pairs,
    }


def main() -> None:
    args = parse()
    report(args, measure(args))


if __name__ == "__main__":
    main()

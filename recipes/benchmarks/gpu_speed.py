"""Parts 2 to 4 of gpu.py: steps over bare passes and bare passes over the roofline; views; peers."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util

import segment_step
import step
import torch
from campaign import Campaign, ratio
from timing import clock
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hf_lowlabel.data.caches.image_cache import ResidentCache

BF16 = ("--precision", "bf16", "--steps", "20", "--threads", "8")
STEPS = {  # name: (benchmark, flags)
    "FixMatch, WRN-28-2, 32 px, 64 + 2 x 448": ("step", ("--batch-size", "64", "--pool", "20000")),
    "FixMatch, ResNet-18, 224 px, 64 + 2 x 448": (
        "step",
        ("--model", "resnet18", "--size", "224", "--batch-size", "64", "--pool", "4000"),
    ),
    "BYOL, ResNet-18, 224 px, 256": (
        "step",
        ("--method", "byol", "--model", "resnet18", "--size", "224", "--batch-size", "256", "--pool", "4000"),
    ),
    "BYOL, ResNet-50, 224 px, 256": (
        "step",
        ("--method", "byol", "--model", "resnet50", "--size", "224", "--batch-size", "256", "--pool", "4000"),
    ),
    "CutMix, DeepLabV3+ on ResNet-50, 321 px, 20 + 20": (
        "segment_step",
        ("--model", "resnet50", "--size", "321", "--batch-size", "20", "--pool", "200"),
    ),
    "FixMatch, ViT-S with LoRA, 224 px, 32 + 2 x 224": (
        "step",
        ("--model", "vit_small_patch16_224", "--lora-rank", "8", "--size", "224", "--batch-size", "32"),
    ),
}
TINY = ("--model", "cnn6_16", "--size", "16", "--batch-size", "2", "--steps", "1", "--pool", "50")
NORMS = ("native_batch_norm", "cudnn_batch_norm", "_batch_norm_with_update", "batch_norm_backward", "native_layer_norm")
MODES = ("eager", "compiled", "CUDA graphs")


class Roofline(TorchDispatchMode):
    """Seconds in which a card could do what is run, each operation at the limit of its arithmetic or of its memory.

    Counted are convolutions, matrix products and attention, and the reading and writing of normalisations; all that is
    done point by point counts as fused into them.
    """

    def __init__(self, flops: float, bandwidth: float):
        """flops: floating-point operations a second. bandwidth: bytes a second."""
        super().__init__()
        self.flops, self.bandwidth, self.seconds, self.work = flops, bandwidth, 0.0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        counted = flop_registry.get(func.overloadpacket)
        if counted is not None or any(name in func.overloadpacket.__name__ for name in NORMS):
            work = counted(*args, **kwargs, out_val=out) if counted is not None else 0
            tensors = [x for x in [*args, *(out if isinstance(out, (tuple, list)) else [out])] if torch.is_tensor(x)]
            moved = sum(x.numel() * x.element_size() for x in tensors)
            self.seconds += max(work / self.flops, moved / self.bandwidth)
            self.work += work
        return out


class Counted:
    """The bare passes of a benchmark, the first of them counted."""

    def __init__(self, bare, card: dict):
        self.bare, self.card, self.roof = bare, card, None

    def __call__(self, loop, batch) -> None:
        if self.roof is None:
            self.roof = Roofline(self.card["flops"], self.card["bandwidth"])
            with self.roof:
                self.bare(loop, batch)
        else:
            self.bare(loop, batch)


def best(function, repeats: int) -> float:
    """Seconds of the fastest of some calls."""
    times = []
    for _ in range(repeats):
        begin = clock()
        function()
        times.append(clock() - begin)
    return max(min(times), 1e-9)


def card(campaign: Campaign) -> dict:
    """What the device reaches on one large matrix product in bf16 and on one large copy."""
    side, count, repeats = (64, 2**12, 2) if campaign.dry else (8192, 2**30, 20)
    a, b = (torch.randn(side, side, device=campaign.device, dtype=torch.bfloat16) for _ in range(2))
    x = torch.zeros(count, dtype=torch.uint8, device=campaign.device)
    y = torch.empty_like(x)
    flops = 2 * side**3 / best(lambda: a @ b, repeats)
    bandwidth = 2 * count / best(lambda: y.copy_(x), repeats)
    return {"text": f"{flops / 1e12:.0f} TFLOP/s, {bandwidth / 1e9:.0f} GB/s", "flops": flops, "bandwidth": bandwidth}


def one_step(campaign: Campaign, key: str, name: str, mode: str, facts: dict) -> None:
    benchmark, flags = STEPS[name]
    module = {"step": step, "segment_step": segment_step}[benchmark]
    method = ("--method", "byol") if "byol" in flags else ()
    given = [*method, *TINY] if campaign.dry else [*flags, *BF16]
    args = module.parse(given + ["--compile"] * (mode != "eager" and not campaign.dry))
    verb = "pretrain" if "byol" in flags else "finetune"
    counted = Counted(step.Bare(verb) if benchmark == "step" else segment_step.bare, facts)
    graphs = contextlib.nullcontext()
    if mode == "CUDA graphs" and not campaign.dry:
        graphs = importlib.import_module("torch._inductor.config").patch({"triton.cudagraphs": True})

    def end_to_end() -> dict:
        with graphs:
            found = module.measure(args, counted)
        whole, bare, roof = 1e3 * found["end_to_end_s"], 1e3 * found["bare_s"], 1e3 * counted.roof.seconds
        shown = ratio("end to end", whole, "bare passes", bare, "ms", found["ratio"], "at most 1.10", flags=given)
        under = ratio("roofline", roof, "bare passes", bare, "ms", goal="at least 0.65")
        text = f"{shown['text']}; {under['text']}"
        return {**shown, "text": text, "roofline": under, "gflop": counted.roof.work / 1e9}

    campaign.figure(key, end_to_end)


def steps(campaign: Campaign) -> None:
    facts: dict = {}

    def kept() -> dict:
        facts.update(card(campaign))
        return dict(facts)

    campaign.figure("2/card", kept)
    facts = facts or card(campaign)
    for mode in MODES[: 1 if campaign.dry else None]:
        for name in list(STEPS)[: 1 if campaign.dry else None]:
            one_step(campaign, f"2/{name}/{mode}", name, mode, facts)


def views(campaign: Campaign) -> None:
    module = importlib.import_module("views")
    goals = {"BYOL pairs, 224 px": (256, 1.5), "FixMatch pairs, 32 px": (448, 0.5)}  # 512 views, 448 pairs
    more = {"FixMatch pairs, 224 px": (448, None), "BYOL pairs, 32 px": (256, None)}
    cases = {"FixMatch pairs, 32 px": (448, 0.5)} if campaign.dry else {**goals, **more}
    for name, (images, goal) in cases.items():
        kinds, size, *_ = module.CASES[name]
        campaign.figure(f"3/{name}/{images}", lambda a=(module, name, images, goal): of_views(campaign, *a))
        campaign.figure(f"3/{name}/profile", lambda a=(kinds, size, images): profile(campaign, module, *a))
    campaign.figure("3/resident pool", lambda: pool(campaign))


def of_views(campaign: Campaign, module, name: str, images: int, goal: float | None) -> dict:
    """Milliseconds for the views of a step, of those that one call makes for several steps its share."""
    calls = (2, 2) if campaign.dry else None
    row = module.measure(name, 1 if campaign.dry else 5, calls)
    at_once = row.get("cuda_images", 2)
    call = row.get("ours_cuda_ms_per_call", 0.0)
    share = call * images / at_once
    pil = 1e3 * images / row["pil_per_cpu_s"]
    more = dict(row=row, goal=f"at most {goal} ms" if goal else "")
    found = ratio("ours on the device", share, "per image on one core", pil, "ms", **more)
    if "kornia_cuda_ms_per_call" in row:
        theirs = row["kornia_cuda_ms_per_call"] * images / at_once
        text = ratio("ours", share, "kornia on the device", theirs, "ms")["text"]
        found["text"] += f"; {text}"
    return found


def profile(campaign: Campaign, module, kinds: tuple[str, str], size: int, images: int) -> dict:
    """The ten operations that take most of the time of a call."""
    from torch.profiler import ProfilerActivity, profile as watching

    pixels = module.smooth_images(2 if campaign.dry else images, 16 if campaign.dry else size).to(campaign.device)
    make = module.ours(kinds, pixels, pixels.shape[-1])
    make(0)
    watched = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * campaign.cuda
    with watching(activities=watched) as found:
        make(1)
        clock()
    rows = found.key_averages()
    spent = {
        row.key: getattr(row, "self_device_time_total" if campaign.cuda else "self_cpu_time_total") for row in rows
    }
    total = sum(spent.values()) or 1
    top = sorted(spent.items(), key=lambda item: -item[1])[:10]
    calls = sum(row.count for row in rows)
    text = ", ".join(f"{name[:60]} {value / total:.0%}" for name, value in top)
    return {"text": f"{total / 1e3:.3g} ms in {calls} operations: {text}", "us": dict(top), "operations": calls}


def pool(campaign: Campaign) -> dict:
    """512 images of 224 px out of a resident pool, against a copy of as many bytes."""
    count, side, taken = (8, 16, 4) if campaign.dry else (4096, 224, 512)
    images = torch.zeros(count, 3, side, side, dtype=torch.uint8, device=campaign.device)
    cache = ResidentCache(images, [str(i) for i in range(count)])
    chosen, out = torch.randperm(count)[:taken], torch.empty_like(images[:taken])
    take, copy = best(lambda: cache.take(chosen), 20), best(lambda: out.copy_(images[:taken]), 20)
    return ratio("take", 1e3 * take, "copy", 1e3 * copy, "ms")


def peers(campaign: Campaign) -> None:
    module = importlib.import_module("peers")
    common = ("--workers", "16", "--precision", "bf16", "--steps", "10", "--rounds", "3", "--threads", "8")
    cases = {
        "FixMatch, WRN-28-2, 32 px, 64 + 2 x 448": (("--case", "fixmatch", "--batch-size", "64"), "at least 2.5"),
        "BYOL, ResNet-18, 224 px, 256": (("--case", "byol", "--size", "224", "--batch-size", "256"), "at least 4"),
    }
    for name, (flags, goal) in cases.items():
        if "byol" in flags and importlib.util.find_spec("lightly") is None:
            print(f"4/{name}: lightly is not installed")
            continue
        tiny = (
            "--model",
            "cnn6_16",
            "--size",
            "16",
            "--batch-size",
            "2",
            "--steps",
            "1",
            "--rounds",
            "1",
            "--pool",
            "60",
        )
        args = module.parse([*flags[:2], *tiny] if campaign.dry else [*flags, *common])

        def both(args=args, goal=goal) -> dict:
            found = module.measure(args)
            sides = (found["ours_images_per_s"], "peer", found["peer_images_per_s"], "images/s")
            return ratio("ours", *sides, value=found["ratio"], goal=goal, rounds=found["rounds"])

        campaign.figure(f"4/{name}", both)

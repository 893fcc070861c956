"""What a step sees: a pure function of (seed, step), the same for any number of processes, workers or restarts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..data.permutation import epoch_permutation
from ..distributed import world
from ..errors import UserError
from ..finetuning.pixels import count_pixels
from ..objective import IGNORE_INDEX
from ..views.transforms import BatchTransform, Draws


class ViewStream:
    """Endless batches of views of some images of a cache.

    members: int64 [N], positions in the cache; None: a ShardedStream decides itself which images come. per_step: images
    in the GLOBAL batch of a step. transform: makes the views (views.transforms). targets: [N] or [N, K], or None.
    chunk: steps whose views are made in one call, which saves starting small operations; the pixels are the same for
    any chunk. parts: micro-batches of a step (`micro_batches`), of each of which a rank has its share.
    """

    def __init__(
        self,
        cache,
        members: Tensor | None,
        per_step: int,
        transform: BatchTransform,
        *,
        name: str,
        seed: int,
        rank: int = 0,
        world: int = 1,
        chunk: int = 1,
        parts: int = 1,
        targets: Tensor | None = None,
    ):
        if per_step % (world * parts):
            each = f", in {parts} parts of the same size on each" if parts > 1 else ""
            raise UserError(
                f"A batch of {per_step} {name} images cannot be shared by {world} processes{each}. Give a multiple of "
                f"{world * parts}."
            )
        self.cache, self.members, self.per_step, self.transform, self.targets = (
            cache,
            members,
            per_step,
            transform,
            targets,
        )
        self.name, self.seed, self.rank, self.world, self.chunk = name, seed, rank, world, chunk
        self.parts, self.share = parts, per_step // world

    def positions(self, chunk: int) -> tuple[int, int, Tensor]:
        """(first global sample of a chunk of steps, how many there are, which of them are this rank's)."""
        count = self.per_step * self.chunk
        rows = torch.arange(count).view(self.chunk, self.parts, self.world, self.share // self.parts)
        return chunk * count, count, rows[:, :, self.rank].flatten()

    def indices(self, chunk: int) -> Tensor:
        """Positions in `members` (without them, in the stream) that this rank sees: int64 [chunk * share]."""
        first, count, rows = self.positions(chunk)
        if self.members is None:
            return first + rows
        return torch.as_tensor(epoch_permutation(self.seed, self.name, first, count, len(self.members)))[rows]

    def __call__(self, start: int) -> Iterator[dict]:
        """Batches from step `start` on."""
        first_chunk = start // self.chunk
        if self.members is None:
            self.cache.position = first_chunk * self.chunk * self.share

        def wanted() -> Iterator[Tensor]:
            chunk = first_chunk
            while True:
                indices = self.indices(chunk)
                yield indices if self.members is None else self.members[indices]
                chunk += 1

        for offset, images in enumerate(self.cache.stream(wanted())):
            chunk = first_chunk + offset
            whole = self.render(chunk, images)
            for step in range(max(start, chunk * self.chunk), (chunk + 1) * self.chunk):
                at = (step - chunk * self.chunk) * self.share
                yield {k: v[at : at + self.share] for k, v in whole.items()}

    def render(self, chunk: int, images: Tensor) -> dict[str, Tensor]:
        """Every view of uint8 images [n, C, H, W] with the draws that belong to this chunk."""
        index = self.indices(chunk)
        sizes = getattr(self.cache, "sizes", None)
        draws = Draws(self.seed, self.name, *self.positions(chunk))
        out = self.transform(images, draws, None if sizes is None else sizes[self.members[index]])
        if self.members is not None and len(self.members) == len(self.cache):  # what is known belongs to what is seen
            index = self.cache.shown(index)
        out["index"] = index.to(images.device, non_blocking=True)
        if self.targets is not None:  # of images in whose place no other may be seen
            out["target"] = self.targets[index].to(images.device, non_blocking=True)
        return out


def micro_batches(batch: dict, parts: int) -> list[dict]:
    """A batch cut into `parts` of equal length along the first axis of every tensor.

    Images with masks, and those of which only a part is `valid`, bring "counted", by which a micro-batch weighs as much
    as its pixels that count (pixels.masked_mean).
    """
    if parts == 1:
        return [batch]
    target = batch.get("labeled", {}).get("target")
    if target is not None and target.dim() == 3:
        batch = {**batch, "labeled": {**batch["labeled"], "counted": count_pixels(target != IGNORE_INDEX)}}
    if (valid := batch.get("unlabeled", {}).get("valid")) is not None:
        batch = {**batch, "unlabeled": {**batch["unlabeled"], "counted": count_pixels(valid)}}
    cut: list[dict] = [{} for _ in range(parts)]
    for key, value in batch.items():
        pieces = micro_batches(value, parts) if isinstance(value, dict) else _equal(value, parts)
        for c, piece in zip(cut, pieces, strict=True):
            c[key] = piece
    return cut


def _equal(value, parts: int) -> list:
    if isinstance(value, list):
        return [list(piece) for piece in zip(*(_equal(v, parts) for v in value), strict=True)] or [[]] * parts
    if len(value) % parts:
        raise UserError(
            f"The {len(value)} images that each process has of a batch cannot be cut into {parts} parts of the same "
            f"size, as gradient_accumulation_steps asks. Give a --batch-size that is a multiple of {parts * world()}."
        )
    return list(value.chunk(parts))


def finetune_batches(labeled: ViewStream, unlabeled: ViewStream | None, start: int) -> Iterator[dict]:
    """{"labeled": {...}, "unlabeled": {...}} from step `start` on; both from one iterator, so that neither runs
    ahead."""
    if unlabeled is None:
        for batch in labeled(start):
            yield {"labeled": batch, "unlabeled": {}}
        return
    for a, b in zip(labeled(start), unlabeled(start), strict=False):  # both are endless
        yield {"labeled": a, "unlabeled": b}


def pretrain_batches(stream: ViewStream, views: Sequence[str], start: int) -> Iterator[dict]:
    """{"views": [...], "index", and where the objective asks for it "boxes", "flips"} from step `start` on."""
    for batch in stream(start):
        out = {"views": [batch[k] for k in views], "index": batch["index"]}
        if f"{views[0]}/box" in batch:
            out["boxes"] = [batch[f"{k}/box"] for k in views]
            out["flips"] = [batch[f"{k}/flip"] for k in views]
        yield out

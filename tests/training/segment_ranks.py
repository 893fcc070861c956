"""A short run of every method of segmentation; as a script, what torchrun starts, with the hash of each process's state at the end."""
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2]))

from hf_lowlabel import METHODS, finetune  # noqa: E402
from tests.training.conftest import SEGMENT  # noqa: E402
from tests.training.test_resume import digest  # noqa: E402

ALGORITHMS = [name for name, m in METHODS.items() if m.verb == "finetune" and "segmentation" in m.tasks]
SMALL = {"clmb": dict(width=8, memory=6, fresh=3, samples=9, tau=0.3, ramp=0.3)}


def settings(method: str, folder) -> dict:
    return dict(SEGMENT, dataset=str(folder), method=method, method_args=SMALL.get(method, {}), keep_checkpoints=9)


def main(data: str, folder: Path) -> None:
    for method in ALGORITHMS:
        run = finetune(**settings(method, data) | dict(max_steps=5, seed=1, lr=1e-4, optimizer="sgd", log_every=1),
                       output_dir=str(folder / method))
        if dist.is_initialized():
            hashes = [None] * dist.get_world_size()
            dist.all_gather_object(hashes, digest({k: v for k, v in run.loop.inner.state_dict().items() if torch.is_tensor(v)}))
            (folder / f"{method}.json").write_text(json.dumps(hashes))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]))

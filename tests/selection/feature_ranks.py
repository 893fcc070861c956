"""`extract` as every process of a launch calls it, on shares of one chunk; each leaves what it found."""

import json
from pathlib import Path

from hf_lowlabel import distributed
from hf_lowlabel.data.caches.decoding import CHUNK
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.errors import UserError
from hf_lowlabel.selection import features


def main(folder: Path, backbone: str, max_bad: float) -> None:
    features.BATCH = CHUNK
    distributed.join_processes("cpu")
    source, path = load_source(folder / "photos"), folder / "f.safetensors"
    try:
        found = features.extract(backbone, source, path=path, device="cpu", workers=1, max_bad=max_bad)
        left = {"skipped": [id for id, _ in found.skipped], "indices": found.indices.tolist(), "reused": found.reused}
    except UserError as error:
        left = {"error": str(error)}
    (folder / f"rank-{distributed.rank()}.json").write_text(json.dumps(left))

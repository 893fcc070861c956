"""The real client against a Hub on the loopback interface, in its own process: the endpoint is read at import."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest
from hub_server import Hub

from tests import strangers

SCRIPT = """
import json, sys, warnings
import numpy as np
import torch
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.data.sources.streaming import ShardedStream, Shards
from hf_lowlabel.errors import UserError

out = []
for arguments in json.loads(sys.argv[1]):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if arguments.pop("streaming", False):
                shards = Shards(**arguments)
                stream = ShardedStream(shards, size=8, max_bad=0.5)
                out.append({"revision": shards.revision, "ids": sorted(id for id, _ in stream.epoch(0))})
                pixels = [shards.sample(9).image(i) for i in range(min(len(out[-1]["ids"]), 9))]
                out[-1]["pixels"] = sorted(np.array(image)[0, 0].tolist() for image in pixels)
                out[-1]["batch"] = list(next(stream.stream([torch.zeros(3)])).shape)
                out[-1]["bad"] = stream.skipped
            else:
                found = load_source(**arguments)
                facts = {k: getattr(found, k) for k in ("name", "config", "split", "revision", "ids", "class_names",
                                                        "fingerprint", "license")}
                out.append(facts | {"labels": found.labels.tolist(), "pixel": np.array(found.image(0))[0, 0].tolist()})
        except UserError as error:
            out.append({"error": str(error)})
    out[-1]["warnings"] = [str(w.message) for w in caught]
print("RESULT" + json.dumps(out))
"""


def ask(home, hub_env: dict, *calls: dict) -> list[dict]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **hub_env}
    done = strangers.ran(SCRIPT, json.dumps(calls), env=env, cwd=Path(__file__).parents[2], package=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("RESULT")[1])


@pytest.fixture(scope="module")
def hub():
    with Hub() as hub:
        yield hub


def test_a_data_set_on_the_hub(tmp_path, make, hub):
    def table(name, labels, seed):
        return make.table(tmp_path / name, labels, seed=seed).read_bytes()

    card = b"""---
license: cc-by-4.0
configs:
- config_name: small
  data_files: [{split: train, path: small/train.parquet}, {split: test, path: small/test.parquet}]
- config_name: large
  data_files: [{split: train, path: large/*.parquet}]
---
"""
    old = hub.add(
        "dataset",
        "org/birds",
        {
            "README.md": card,
            "small/train.parquet": table("a", ["owl", "tit", None], 0),
            "small/test.parquet": table("b", ["tit"], 10),
            "large/0.parquet": table("c", [0, 1], 20),
            "large/1.parquet": table("d", [1], 30),
        },
        tag="v1",
    )
    new = hub.add("dataset", "org/birds", {"small/train.parquet": table("e", ["owl", "owl", "tit"], 40)})
    pictures = {f"{'cat' if i % 2 else 'dog'}/{i}.png": make.encoded(make.picture(50 + i)) for i in range(4)}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for path, content in pictures.items():
            file.writestr(path, content)
    hub.add("dataset", "org/files", {f"train/{path}": content for path, content in pictures.items()})
    hub.add("dataset", "org/zip", {"train.zip": archive.getvalue()})
    hub.add("dataset", "org/rows", {"train.csv": b"file_name,label\n1.png,owl\n"})
    home = tmp_path / "home"
    latest, first, test, large, *errors, streamed, files, zipped, rows = ask(
        home,
        hub.env(home),
        dict(dataset="org/birds", config="small"),
        dict(dataset="org/birds", config="small", revision="v1"),
        dict(dataset="org/birds", config="small", split="test", revision=old),
        dict(dataset="org/birds", config="large"),
        dict(dataset="org/birds"),
        dict(dataset="org/birds", config="smal"),
        dict(dataset="org/birds", config="small", split="tets"),
        dict(dataset="org/birds", config="small", revision="v2"),
        dict(dataset="org/bird"),
        dict(dataset="org/birds", config="large", streaming=True),
        dict(dataset="org/files", streaming=True),
        dict(dataset="org/zip", streaming=True),
        dict(dataset="org/rows", streaming=True),
    )

    assert (latest["revision"], first["revision"], test["revision"]) == (new, old, old)
    assert latest["name"] == "org/birds" and latest["config"] == "small" and latest["license"] == "cc-by-4.0"
    assert latest["labels"] == [0, 0, 1] and first["labels"] == [0, 1, -1] and latest["class_names"] == ["owl", "tit"]
    assert latest["fingerprint"] != first["fingerprint"]
    assert test["split"] == "test" and test["class_names"] == ["tit"] and len(large["ids"]) == 3
    for got, seed in ((latest, 40), (first, 0), (test, 10), (large, 20)):
        assert got["pixel"] == list(make.picture(seed).getpixel((0, 0)))

    parts = [
        "with --dataset-config",
        "'smal': did you mean 'small'",
        "'tets': did you mean 'test'",
        "'v2': did you mean 'v1'",
        "neither a path nor a data set on the Hub",
    ]
    for got, part in zip(errors, parts, strict=True):
        assert part in got["error"], got

    assert streamed["revision"] == new and streamed["ids"] == ["0:0", "0:1", "1:0"]

    # rows that are files of the repository, as they are and in an archive
    expected = sorted(list(make.picture(50 + i).getpixel((0, 0))) for i in range(4))
    for got in (files, zipped):
        assert (got["pixels"], got["batch"], got["bad"]) == (expected, [3, 3, 8, 8], []), got
    assert "'org/rows' does not say which columns it has" in rows["error"]

    # a Hub that is down: what was cached serves, and says that its commit is not known
    offline = hub.env(home) | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    cached, absent = ask(home, offline, dict(dataset="org/birds", config="small"), dict(dataset="org/bees"))
    assert "no file or folder 'org/bees' here, no copy in the cache, and the Hub cannot be reached" in absent["error"]
    assert cached["revision"] is None and any("commit is not known" in text for text in cached["warnings"])
    assert cached["fingerprint"] in (latest["fingerprint"], first["fingerprint"])

"""`pretrain --sharded`: each process reads its own parquet files as they come."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from hf_lowlabel import api, cli
from hf_lowlabel.data.sources.streaming import ShardedStream
from hf_lowlabel.errors import UserError
from hf_lowlabel.training import pretrain as pretrain_run, setup

from . import shard_ranks
from .conftest import PRETRAIN, tensors
from .test_resume import flags, watch

sys.path.insert(0, str(Path(__file__).parents[1]))  # hub_server, which imports its neighbour
from hub_server import Hub  # noqa: E402

FILES, ROWS = 4, 6
SETTINGS = dict(
    PRETRAIN, method="simsiam", method_args=dict(out=64, hidden=32), batch_size=8, sharded=True, save_total_limit=9
)


@pytest.fixture
def folder(tmp_path):
    """24 images of 8 px in four files; ids tell file and row."""
    root, rng = tmp_path / "shards", np.random.default_rng(0)
    root.mkdir()
    for file in range(FILES):
        images = []
        for _ in range(ROWS):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"image": images, "id": [f"{file}-{row}" for row in range(ROWS)]})
        pq.write_table(table, root / f"train-{file:05d}-of-{FILES:05d}.parquet")
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def run(folder, where, **changed):
    return api.pretrain(**{**SETTINGS, "dataset": str(folder), **changed}, output_dir=str(where))


def test_a_resumed_run_is_bit_identical(folder, tmp_path, monkeypatch):
    """From step 4 of 6, in the second epoch of 24 images, with other workers; views are made two steps ahead."""
    monkeypatch.setattr(setup, "steps_ahead", lambda *args: 2)  # as for larger images: 16 would be all of the run
    straight, resumed = {}, {}
    with monkeypatch.context() as m:
        watch(m, straight)
        run(folder, tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "step-00000006")
    with monkeypatch.context() as m:
        watch(m, resumed)
        run(folder, tmp_path / "killed", resume=True, workers=5)
    assert len(set(straight.values())) == 6 and resumed == {step: straight[step] for step in (4, 5)}
    expected, found = tensors(tmp_path / "straight", 6), tensors(tmp_path / "killed", 6)
    assert expected.keys() == found.keys() and all(torch.equal(expected[k], found[k]) for k in expected)
    facts = json.loads((tmp_path / "straight" / "run.json").read_text())
    assert facts["data"]["name"] == folder.name and facts["data"]["images"] is None  # nobody counts those of a stream

    with monkeypatch.context() as m:
        m.setattr(pretrain_run, "world", lambda: 2)
        with pytest.raises(UserError, match="number of processes was 1, now 2"):
            run(folder, tmp_path / "straight", resume=True)
    (folder / f"train-00003-of-{FILES:05d}.parquet").unlink()
    with pytest.raises(UserError, match="step-00000006 cannot be resumed with other data: images, or labels that lie"):
        run(folder, tmp_path / "straight", resume=True)


@pytest.mark.slow
def test_ranks_read_their_own_files_of_a_hub_data_set(folder, tmp_path):
    """One epoch of the command on one and on two processes: every image once, and no file twice."""
    read = {}
    with Hub() as hub:
        hub.add("dataset", "org/many", {f"data/{p.name}": p.read_bytes() for p in folder.iterdir()})
        for world in (1, 2):
            settings = dict(
                SETTINGS, dataset="org/many", method_args="hidden=32", max_steps=FILES * ROWS // 8, save_steps=3
            )
            noted = tmp_path / f"read{world}"
            torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if world > 1 else []
            command = [
                sys.executable,
                *torchrun,
                shard_ranks.__file__,
                str(noted),
                "pretrain",
                *flags(settings),
                "--output-dir",
                str(tmp_path / f"run{world}"),
            ]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **hub.env(tmp_path / "home")}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-3000:]
            files = [Path(f"{noted}.{rank}") for rank in range(world)]
            read[world] = [json.loads(file.read_text())[: FILES * ROWS // world] for file in files]
    every = sorted(f"{file}-{row}" for file in range(FILES) for row in range(ROWS))
    assert sorted(read[1][0]) == every
    one, two = read[2]
    assert sorted(one + two) == every and not {id[0] for id in one} & {id[0] for id in two}


@pytest.mark.parametrize(
    "changed, words",
    [
        (dict(max_steps=None), "sharded needs --max-steps N"),
        (dict(epochs=2.0), "epochs cannot be given with sharded"),
        (dict(split="split.json"), "split cannot be given with sharded"),
        (dict(streaming=True, label_column="label"), "label_column and streaming cannot be given with sharded"),
        (dict(dataset="digits"), "'digits' has no shards, as parquet files and Hub ids have"),
    ],
)
def test_what_it_cannot_do_is_refused(changed, words, folder, tmp_path):
    with pytest.raises(UserError, match=words):
        run(folder, tmp_path / "run", **changed)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_iterable_dataset_is_pretrained_on(folder, tmp_path):
    import datasets

    rows = datasets.load_dataset("parquet", data_files=str(folder / "*.parquet"), split="train")
    first = run(None, tmp_path / "run", dataset=rows.to_iterable_dataset(num_shards=2), max_steps=2)
    assert first.metrics["feature_std"] > 0
    with pytest.raises(UserError, match="The data of this run was an IterableDataset in memory, which is not in its"):
        run(None, tmp_path / "other", dataset="an IterableDataset in memory", max_steps=2)
    with pytest.raises(UserError, match="this is a Dataset. Leave out sharded"):
        run(None, tmp_path / "other", dataset=rows, max_steps=2)


def test_finetune_has_no_such_setting(capsys):
    assert cli.main(["finetune", "--dataset", "digits", "--sharded"]) == 2
    assert "--sharded is a setting of pretrain only" in capsys.readouterr().err


def test_more_processes_than_files_is_said(folder):
    from hf_lowlabel.data.sources.streaming import Shards

    with pytest.warns(UserWarning, match="4 shards for 5 ranks"):
        ShardedStream(Shards(folder), size=8, world=5)

"""A short selection of the sweeps (the whole of them: pytest -m slow tests/faults), and faults that need more words."""

import errno
import os
import random
import stat
import time

import pytest
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.data import shrinking

from .injector import KILL, WRITE, Fault, attempt
from .kinds import SWEEPS, sized
from .sandbox import VERBS, build, clear, content, pictures, run
from .sweeps import bad_inputs, byte_flips, canaries, kills, spread


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Photos, a manifest and a classifier."""
    box = tmp_path_factory.mktemp("few")
    build(box, ["run"])
    return box


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    box = tmp_path_factory.mktemp("every")
    build(box)
    return box


def held(cases):
    """All of them, and some there were."""
    cases = list(cases)
    wrong = [f"{case.name}: {case.wrong}" for case in cases if case.wrong]
    assert cases and not wrong, f"{len(wrong)} of {len(cases)} did not hold:\n" + "\n".join(wrong[:20])


def test_other_things_in_the_place_of_files(few):
    held(bad_inputs(few, 4, ["run/run.json", "run/metrics.json"], ["report --table", "report --quick"]))


def test_a_turned_bit_is_told(few):
    held(byte_flips(few, 6, ["run/model.safetensors", "run/config.json"]))


def test_a_killed_verb_is_run_again(few):
    held(kills(few, ["split", "predict", "shrink"], most=3))


def test_a_killed_frozen_run_goes_on(few):
    held(kills(few, ["knn"], most=2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SWEEPS)
def test_every_fault(kind, every):
    held(SWEEPS[kind](every, **sized(kind, 1)))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_is_no_fault_of_a_photo(error, tmp_path, monkeypatch):
    """Whatever `shrink` writes just then: a small picture, a copy, a table, the record."""
    (tmp_path / "photos").mkdir()
    for name, side in (("large.jpg", 64), ("alike.png", 64), ("small.png", 32)):
        Image.new("RGB", (side, side), "red").save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "labels.csv").write_text("file_name,label\nlarge.jpg,red\n")
    monkeypatch.setattr(shrinking, "cores", lambda: 1)

    def call(name, fault=None):
        out = tmp_path / name
        command = ["shrink", str(tmp_path / "photos"), "--side", "32", "--max-bad", "0.5", "--output-dir", str(out)]
        done = attempt(lambda: main(command), folder=out, fault=fault)
        return done, {p.name for p in out.glob("[!.]*")}

    first, whole = call("out")
    ends = set()
    for at in spread(first.touched, 12 if error == errno.ENOSPC else 4, error):
        done, there = call(f"out {at}", Fault(at, error))
        assert done.held and "left out" not in done.text
        assert f"error: {os.strerror(error)}" in done.text if done.code else there == whole
        ends.add(done.code)
        assert call(f"out {at}")[1] == whole
    assert 2 in ends and ends <= {0, 2}


def test_code_in_a_run_folder_never_runs(few):
    held(canaries(few, ["demo-app", "predict"], ["auto_map", "checkpoint_path", "adapter", "eps"]))


def test_the_injector_hurts_what_it_says(tmp_path):
    """The n-th write dies or fails with its first half written; reads and files elsewhere are left alone."""
    file, other = tmp_path / "inside" / "a.txt", tmp_path / "b.txt"
    file.parent.mkdir()

    def call():
        other.write_text("0123456789")
        file.write_text("0123456789")  # opened, then written
        return 0

    whole = attempt(call, folder=file.parent)
    assert whole.held and whole.code == 0 and whole.touched == 2
    assert attempt(call, folder=file.parent, fault=Fault(2, KILL)).code == -9 and file.read_text() == "01234"
    failed = attempt(call, folder=file.parent, fault=Fault(2, 28))
    assert failed.verdict == "traceback" and "No space left" in failed.text and other.read_text() == "0123456789"
    assert attempt(lambda: os.read(os.pipe()[0], 1), seconds=0.2).verdict == "hang"


def test_what_is_refused_to_a_file_is_said_of_the_one_asked_for(tmp_path):
    """Not of the hidden one beside it, nor of one inside a hidden folder."""
    from hf_lowlabel import files, table_writer

    for path in ("/proc/x.csv", "/proc/x.parquet"):
        with pytest.raises(OSError) as error, table_writer.growing_table(path) as add:
            add({"a": 1})
        assert path in str(error.value) and ".part" not in str(error.value)
    with pytest.raises(OSError) as error, files.whole_folder("/proc/folder"):
        pass
    assert error.value.filename == "/proc/folder"
    with pytest.raises(OSError) as error, files.whole_folder(tmp_path / "folder") as part:
        (part / "gone" / "a.txt").write_text("")
    assert error.value.filename == str(tmp_path / "folder" / "gone" / "a.txt")


def test_files_have_the_mode_of_their_neighbours(few):
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (few / "run").iterdir() if p.is_file()}
    assert set(modes.values()) == {stat.S_IMODE((few / "settings.yaml").stat().st_mode)}, modes


def test_a_file_changed_on_purpose_loses_its_line(few):
    """The refusal says how; a refused start leaves the checksums as they are."""
    config, seal = few / "run" / "config.json", few / "run" / "checksums.json"
    before, sealed = config.read_text(), seal.read_text()
    config.write_text(before.replace('"crop_mode": "center"', '"crop_mode": "center" '))
    refused = run(few, VERBS["predict"][0])
    assert refused.code == 2 and "config.json has changed" in refused.text and "remove its line" in refused.text
    again = run(few, VERBS["finetune"][0].replace("--output-dir out", "--output-dir run"))
    assert again.code == 2 and "not empty" in again.text and seal.read_text() == sealed
    seal.write_text("\n".join(line for line in sealed.split("\n") if "/config" not in line and '"config' not in line))
    assert run(few, VERBS["predict"][0]).code == 0
    clear(few)
    config.write_text(before), seal.write_text(sealed)


def test_cut_weights_without_a_checksum_are_told(few):
    """Nothing is made of them, and nothing is left of what was asked."""
    weights, seal = few / "run" / "model.safetensors", few / "run" / "checksums.json"
    whole, sealed = weights.read_bytes(), seal.read_text()
    weights.write_bytes(whole[: len(whole) // 2]), seal.unlink()
    for verb in ("predict", "demo-app"):
        done = run(few, VERBS[verb][0])
        assert done.code == 2 and not done.verdict and "afetensor" in done.text, done
        assert not (few / VERBS[verb][1]).exists()
    weights.write_bytes(whole), seal.write_text(sealed)


def test_a_damaged_checkpoint_starts_no_run(few):
    """--init-from one of a run's checkpoints: as with --resume, what has changed is not taken."""
    [*_, newest] = sorted((few / "run" / "checkpoints").iterdir())
    file = newest / "objective.safetensors"
    whole, command = file.read_bytes(), f"{VERBS['finetune'][0]} --init-from {newest}"
    for changed in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(changed)
        done = run(few, command)
        assert done.code == 2 and "is damaged" in done.text and not (few / "out").exists(), done
    file.write_bytes(whole)
    done = run(few, f"{VERBS['finetune'][0]} --init-from {newest / 'nothing'}")
    assert done.code == 2 and "neither config.json nor objective" in done.text


def test_a_streaming_run_needs_no_shared_memory(tmp_path):
    """Workers that cannot have any (a container's /dev/shm of 64 MB, full) still hand over what they decode."""
    import torch

    pictures(tmp_path)

    def call():
        def full(*_):
            raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

        torch.UntypedStorage._share_fd_cpu_ = torch.UntypedStorage._share_filename_cpu_ = full
        from hf_lowlabel.data import load_source
        from hf_lowlabel.data.caches.image_cache import build_cache

        cache = build_cache(load_source(tmp_path / "photos"), range(24), size=16, streaming=True, workers=2)
        batches = [torch.arange(k, k + 4) for k in range(0, 24, 4)]
        assert sum(len(images) for images in cache.stream(iter(batches))) == 24

    assert attempt(call, seconds=60).code == 0


def test_a_worker_that_is_ended_is_one_sentence(tmp_path):
    import signal

    import torch

    from hf_lowlabel.errors import UserError

    pictures(tmp_path)

    def call():
        from hf_lowlabel.data import load_source
        from hf_lowlabel.data.caches.image_cache import build_cache, workers_are_there

        cache = build_cache(load_source(tmp_path / "photos"), range(24), size=16, streaming=True, workers=1)
        batches = (torch.arange(4) for _ in range(10_000))
        with workers_are_there():
            for n, _ in enumerate(cache.stream(batches)):
                if n == 2:
                    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
                    os.kill(int(children[-1]), signal.SIGKILL)

    def caught():
        try:
            call()
        except UserError as error:
            print(error)
            return 3

    done = attempt(caught, seconds=60)
    assert done.code == 3 and "ended from outside" in done.text and "--workers" in done.text


def test_leftovers_of_killed_processes_go_and_others_stay(tmp_path):
    from hf_lowlabel import files, partial_files

    gone, alive = (tmp_path / f".split.json.{partial_files.here()}-{pid}.part" for pid in (999999, os.getppid()))
    mine = tmp_path / ".notes.part"
    for path in (gone, alive, mine):
        path.write_text("half")
    partial_files._SWEPT.clear()
    files.write_text(tmp_path / "split.json", "{}")
    assert not gone.exists() and alive.exists() and mine.exists()


def test_what_another_machine_writes_is_left_until_it_is_old(tmp_path):
    """Of a machine or container that shares the folder, whose processes do not run here, and of older versions."""
    from hf_lowlabel import files, partial_files

    names = [".a.0123abcd-999999.part", ".a.999999.part", f".a.0123abcd-{os.getppid()}.part"]
    for name in names:
        (tmp_path / name).write_text("half")
    model = tmp_path / ".model.0123abcd-999998.part"  # of `whole_folder`: what is in it is written to
    (model / "deep").mkdir(parents=True)
    (model / "deep" / "weights").write_text("half")
    for path in (model, model / "deep"):
        os.utime(path, (0, 0))
    there = {*names, model.name}
    for old in ((), (*names, f"{model.name}/deep/weights", f"{model.name}/deep", model.name)):
        for name in old:
            os.utime(tmp_path / name, (time.time() - partial_files.OLD - 60,) * 2)
        partial_files._SWEPT.clear()
        files.write_text(tmp_path / "b", "")
        left = {path.name for path in tmp_path.iterdir()} - {"b"}
        assert left == (set() if old else there)


def test_a_container_with_numbers_of_its_own_is_another_machine(tmp_path, monkeypatch):
    from hf_lowlabel import files, partial_files

    with files.whole(tmp_path / "a") as part:
        part.write_text("half")
        monkeypatch.setattr(partial_files, "here", lambda: "0123abcd")  # as another one sees it
        monkeypatch.setattr(partial_files, "_ended", lambda process: True)
        partial_files._SWEPT.clear()
        files.write_text(tmp_path / "b", "")
    assert (tmp_path / "a").read_text() == "half"
    monkeypatch.undo()
    link = os.readlink("/proc/self/ns/pid")
    seen = [partial_files.here()]
    for other in ("pid:[1]", link):
        partial_files.here.cache_clear()
        monkeypatch.setattr(os, "readlink", lambda path, other=other: other)
        seen.append(partial_files.here())
    partial_files.here.cache_clear()
    assert seen[0] == seen[2] != seen[1]


def test_a_seal_stays_true_when_a_file_is_written(tmp_path):
    from hf_lowlabel import files

    for name in "ab":
        files.write_text(tmp_path / name, name)
    files.seal(tmp_path, ["a", "b", "c"])
    files.write_text(tmp_path / "a", "new")
    assert files.read_text(tmp_path / "a") == "new"
    (tmp_path / "b").write_text("other")
    with pytest.raises(files.UserError, match="b has changed since it was written"):
        files.read_text(tmp_path / "b")
    rng = random.Random(0)
    seal = (tmp_path / "checksums.json").read_bytes()
    for _ in range(20):  # damage of the seal itself never lets a changed file pass
        changed = bytearray(seal)
        changed[rng.randrange(len(seal))] ^= 1 << rng.randrange(5)
        (tmp_path / "checksums.json").write_bytes(changed)
        if b'"b":' in bytes(changed):
            with pytest.raises(files.UserError):
                files.read_text(tmp_path / "b")


def test_content_of_a_killed_write_is_never_half(tmp_path):
    from hf_lowlabel import table_writer

    (tmp_path / "a").mkdir()
    for at in range(1, 12):
        done = attempt(
            lambda: table_writer.write_table(tmp_path / "a" / "t.csv", [{"x": "1" * 1000}]),
            folder=tmp_path / "a",
            fault=Fault(at, KILL, WRITE),
        )
        if done.code == 0:
            break
        found = content(tmp_path / "a").get("t.csv")
        assert found is None or found == b"x\r\n" + b"1" * 1000 + b"\r\n"
    assert done.code == 0 and at > 3

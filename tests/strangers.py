"""Fresh processes, forked from one that has torch behind it, whose import takes each seconds.

This package cannot be imported in them, unless it is asked for. What reads its environment while it is imported
(huggingface_hub, transformers, timm, datasets, our package) each imports itself.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = """
import gc, importlib, json, os, sys, traceback
gc.disable()
sys.modules["hf_lowlabel"] = None
for name in "torch torchvision pandas pyarrow.parquet sklearn.metrics scipy.stats safetensors.torch yaml".split():
    importlib.import_module(name)
assert not {"huggingface_hub", "transformers", "timm", "datasets"} & {*sys.modules}
gc.freeze(), gc.enable()
for line in sys.stdin:
    code, argv, environment, folder, out, package = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for fd, name in enumerate(("stdout", "stderr"), 1):
        os.dup2(os.open(f"{out}/{name}", os.O_WRONLY | os.O_CREAT), fd)
    os.environ.clear(), os.environ.update(environment)
    os.chdir(folder)
    sys.argv, done = ["-c", *argv], 1
    if package:
        del sys.modules["hf_lowlabel"]
    try:
        exec(compile(code, "<stranger>", "exec"), {"__name__": "__main__"})
        assert package or [name for name in sys.modules if name.startswith("hf_lowlabel")] == ["hf_lowlabel"]
        assert package or sys.modules["hf_lowlabel"] is None
        done = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(done)
"""


@functools.cache
def _server() -> subprocess.Popen:
    """Ends with this process, which holds its input open."""
    return subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    )


def ran(code: str, *argv: str, env: dict[str, str], cwd: Path, package: bool = False) -> subprocess.CompletedProcess:
    """As `python -c code argv` where this package is not installed, or where it is; env: all of its environment."""
    server = _server()
    with tempfile.TemporaryDirectory() as out:
        print(json.dumps([code, argv, env, str(cwd), out, package]), file=server.stdin, flush=True)
        done = int(server.stdout.readline())
        said = [Path(out, name).read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess([*argv], done, *said)

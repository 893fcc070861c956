"""What every test shares: two threads at most, no network, quick little data."""

import gc
import os

gc.disable()  # until all is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")  # on AMD MKL rounds sums otherwise by where in memory the weights lie

import logging  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

from hf_lowlabel.text import speaks  # noqa: E402

from .pictures import OF_CLASSES, OF_MASKS, draw_nothing  # noqa: E402
from .quick import few_draws, fewer_pixels, no_flush  # noqa: E402

torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """What was imported stays: the garbage collector looks at none of it again."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Halves of the tests, of which one who has done takes from the other: files, and what their tests share, are torn
    apart at a few places, and not at every small portion of `--dist load`."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture(autouse=True, scope="session")
def heard_log():
    """caplog hears the lines after a command too, the first of which in a process turns them off for others."""
    speaks(by_itself=True)
    logging.getLogger("hf_lowlabel").propagate = True


@pytest.fixture(autouse=True)
def no_level():
    """A level that a test leaves, such as that of a second process, is one that a user has set for the next."""
    yield
    logging.getLogger("hf_lowlabel").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True, scope="session")
def quick():
    with pytest.MonkeyPatch.context() as patch:
        no_flush(patch.setattr)
        few_draws(patch.setattr)
        fewer_pixels(patch.setattr)
        yield


@pytest.fixture
def all_pixels(monkeypatch):
    """For tests of how well the pixels of masks are told apart."""
    fewer_pixels(monkeypatch.setattr, most=float("inf"))


@pytest.fixture(autouse=True)
def no_pictures(request):
    """They cost most of a tiny run; tests that look at them are marked `pictures`. A test may undo `monkeypatch`."""
    with pytest.MonkeyPatch.context() as patch:
        if "pictures" not in request.keywords:
            draw_nothing(patch.setattr, *OF_CLASSES, *OF_MASKS)
        yield

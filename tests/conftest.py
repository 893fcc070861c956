"""What every test shares: two threads at most, no network, quick little data."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")  # on AMD MKL rounds sums otherwise by where in memory the weights lie

import torch  # noqa: E402

torch.set_num_threads(1)

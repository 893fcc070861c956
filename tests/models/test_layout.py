"""Layout in memory: channels_last, except where a CPU is slower with it."""

import pytest
import torch
from torch import nn

from hf_lowlabel.models import create_backbone
from hf_lowlabel.models.memory_format import best_layout

ROWS, LAST = torch.contiguous_format, torch.channels_last


@pytest.mark.parametrize(
    "name, size, device, expected",
    [
        ("resnet18", 64, "cpu", ROWS),
        ("resnet18", 224, "cpu", LAST),
        ("resnet18", 64, "cuda", LAST),
        ("mobilenetv2_050", 64, "cpu", LAST),  # most of its weights are in convolutions of one pixel
        ("wrn_28_2", 32, "cpu", LAST),  # its last maps are 8 px a side
        ("cnn6_16", 16, "cpu", LAST),
    ],
)
def test_rows_where_wide_convolutions_end_on_small_maps(name, size, device, expected):
    with torch.device("meta"):
        network = create_backbone(name, pretrained=False)
    assert best_layout(nn.ModuleList([nn.Linear(2, 2), network]), size, device) is expected


def test_a_network_that_says_nothing_of_its_maps_is_channels_last():
    assert best_layout(nn.Conv2d(3, 64, 3), 8, "cpu") is LAST

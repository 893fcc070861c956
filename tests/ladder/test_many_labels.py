"""Frozen rungs with more labels than a graph takes."""

import numpy as np

from hf_lowlabel.ladder.encoders import Features
from hf_lowlabel.ladder.frozen import climb
from hf_lowlabel.ladder.rungs import PROBE

from .test_rungs import clusters, drawn, right


def test_labels_beside_the_graph_are_judged_and_teach_the_probe(monkeypatch, caplog):
    monkeypatch.setattr("hf_lowlabel.finetuning.pooling.MOST_POOLED", 120)
    caplog.set_level("INFO")
    x, y = clusters()
    rows = drawn(y, 40)
    encoder = Features("net", x, rows, y[rows], 4, by_names=np.eye(4)[y] * 0.4 + 0.15)
    assert len(encoder.some) == 120 and encoder.inside.sum() == 60
    assert (np.bincount(y[rows[encoder.inside]]) == 15).all()
    tried = climb([encoder], y[rows])
    assert caplog.text.count("labels spread over a graph from 60 of the 160 labels") == 1
    for one in tried:
        assert len(one.asked) == 160  # each was left out
        assert one.accuracy > 0.8
        assert right(encoder.head(one), x, y) > 0.8
        assert encoder.say(one).shape == (480, 4)
    probe = next(one for one in tried if one.rung is PROBE)
    everything = Features("net", x, rows, y[rows], 4).probe
    np.testing.assert_array_equal(encoder.probe.logits(y[rows]), everything.logits(y[rows]))
    assert probe.correct.sum() >= 150


def test_a_label_beside_the_graph_has_no_part_in_what_is_said_of_it(monkeypatch):
    monkeypatch.setattr("hf_lowlabel.finetuning.pooling.MOST_POOLED", 120)
    x, y = clusters()
    rows = drawn(y, 40)
    encoder = Features("net", x, rows, y[rows], 4)
    targets = np.eye(4)[y[encoder.some]]
    out = np.arange(len(rows))
    z = encoder.left_out(targets, out)
    weight, bias = encoder.pool.head(targets)
    beside = ~encoder.inside
    np.testing.assert_allclose(z[beside], x[rows[beside]] @ weight.T + bias, atol=1e-4)
    np.testing.assert_array_equal(z[~beside], encoder.pool.left_out(targets, encoder.at))


def test_a_class_that_no_label_of_the_graph_is_of_is_alike_inside_and_beside(monkeypatch):
    """In a fold that leaves out those that the graph has: what is said of its labels has one scale."""
    monkeypatch.setattr("hf_lowlabel.finetuning.pooling.MOST_POOLED", 120)
    x, y = clusters()
    rows = drawn(y, 40)
    encoder = Features("net", x, rows, y[rows], 4)
    targets = np.eye(4)[y[encoder.some]] * [1, 1, 1, 0]
    z = encoder.left_out(targets, np.arange(len(rows)))
    p = encoder.believe(targets, 1.0, y[rows])
    for said in (z[:, 3], np.log(p[:, 3])):
        assert np.ptp(said) < 3

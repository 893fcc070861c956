"""A run says at its end where it stands beside a probe of the features it started from."""

import pytest

from hf_lowlabel import finetune, pretrain

SMALL = dict(image_size=16, device="cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "byol"
    short = dict(batch_size=32, max_steps=4, method_args=dict(hidden=64))
    pretrain("digits", "cnn6_16", from_scratch=True, output_dir=str(folder), **short, **SMALL)
    return str(folder)


def test_a_run_below_the_probe_warns(encoder, tmp_path, caplog):
    still = dict(num_labels=40, max_steps=1, learning_rate=1e-9, batch_size=8, head_init="random", **SMALL)
    run = finetune("digits", encoder, "supervised", output_dir=str(tmp_path / "a"), **still)
    frozen = run.recorder.comparisons[0].metrics["accuracy"]
    assert run.metrics["accuracy"] < frozen - 0.1
    assert f"is below the {100 * frozen:.1f} % of a linear probe" in caplog.text
    assert "Take `finetune --method probe` with the same labels" in caplog.text

"""A run folder from its first start on: what a requeued, refused or killed run leaves in it can be gone on with."""

import shutil

import pytest
import torch

from hf_lowlabel import api
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.models import LowLabelForImageClassification, create_classifier
from hf_lowlabel.models.saved_models import open_model
from hf_lowlabel.training import frozen, preparing
from hf_lowlabel.training.loop import Loop
from hf_lowlabel.training.same_run import changes
from hf_lowlabel.yaml_files import read_yaml

from .conftest import FINETUNE, SMALL


@pytest.fixture(autouse=True)
def few(few_images):
    """Of the digits."""


def test_resume_in_a_new_folder_writes_the_settings(tmp_path):
    """As jobs that may be requeued give it from the first start on."""
    api.finetune(**{**FINETUNE, "max_steps": 2}, method="supervised", resume=True, output_dir=tmp_path / "run")
    assert read_yaml(tmp_path / "run" / "training.yaml")["num_labels"] == 20


def test_a_refused_resume_leaves_settings_and_manifest(tmp_path):
    run = tmp_path / "run"
    api.finetune(**{**FINETUNE, "max_steps": 2}, method="supervised", output_dir=run)
    before = {name: (run / name).read_bytes() for name in ("training.yaml", "split.json")}
    with pytest.raises(UserError, match="cannot be resumed with other"):
        api.finetune(**{**FINETUNE, "max_steps": 2, "num_labels": 30}, method="supervised", output_dir=run, resume=True)
    assert before == {name: (run / name).read_bytes() for name in before}
    assert len(Split.load(run / "split.json").labeled) == 20


def test_a_setting_that_a_run_did_not_know_yet_had_its_default():
    assert changes({"seed": 0}, {"seed": 0, "plain_folders": False}) == []
    assert changes({"seed": 0}, {"seed": 0, "plain_folders": True}) == ["plain_folders was None, now True"]


def without(root) -> None:
    (root / "dark" / "3.png").unlink()


def renamed(root) -> None:
    (root / "dark").rename(root / "night")


def exchanged(root) -> None:
    shutil.copyfile(root / "dark" / "3.png", root / "dark" / "4.png")


def relabeled(root) -> None:
    text = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(text.replace("dark/3.png,a", "dark/3.png,b"))


@pytest.mark.parametrize(
    "change, table, says",
    [
        (without, False, "other data: gone: dark/3.png. Use the data of the run"),
        (renamed, False, "the class 'dark' is now 'night'; gone: dark/0.png, .* and 9 more. Use"),
        (exchanged, False, "other data: images, or labels that lie beside them, were added, removed or replaced. Use"),
        (relabeled, True, "other data: labels: dark/3.png was 'a', now 'b'. Use"),
    ],
)
def test_a_refused_resume_says_what_is_not_as_it_was(change, table, says, photos, tmp_path, monkeypatch):
    """By name, and before the network is loaded."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(photos / "labeled", data)
    if table:
        rows = [f"{name}/{i}.png,{label}\n" for name, label in (("dark", "a"), ("light", "b")) for i in range(12)]
        (data / "labels.csv").write_text("file_name,label\n" + "".join(rows))
    settings = dict(SMALL, dataset=str(data), method="supervised", max_steps=1, test_fraction=0.0, output_dir=run)
    del settings["unlabeled_ratio"]
    api.finetune(**settings)
    change(data)
    monkeypatch.setattr(preparing, "network_of", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=says):
        api.finetune(**settings, resume=True)
    with pytest.raises(UserError, match="step-00000001 cannot be resumed with other settings: image_size was 16, now"):
        api.finetune(**dict(settings, image_size=24), resume=True)


def test_a_killed_run_on_frozen_features_is_done_again(tmp_path, monkeypatch):
    """Its settings are those of the second start: nothing of the first one is in the result."""
    settings = {k: FINETUNE[k] for k in ("dataset", "model", "from_scratch", "image_size", "num_labels")}

    def killed(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(frozen, "predict", killed)
        api.finetune(**settings, method="knn", output_dir=tmp_path / "run")
    with pytest.raises(UserError, match="Give --resume"):
        api.finetune(**settings, method="knn", output_dir=tmp_path / "run")
    done = api.finetune(**{**settings, "num_labels": 30}, method="knn", output_dir=tmp_path / "run", resume=True)
    assert (done.folder / "priors.safetensors").is_file()
    assert (
        read_yaml(done.folder / "training.yaml")["num_labels"]
        == len(Split.load(done.folder / "split.json").labeled)
        == 30
    )


def test_statistics_that_are_not_finite_undo_the_step(tmp_path, monkeypatch):
    """A branch that has no part in the loss spoils BatchNorm's variance: the step is bad, and leaves no trace."""
    step, seen = Loop.train_step, []

    def train_step(self, batch):
        norm = next(m for m in self.inner.modules() if isinstance(m, torch.nn.BatchNorm2d))
        if self.step != 1:
            return step(self, batch)
        before = {k: v.clone() for k, v in self.inner.state_dict().items()}
        spoil = norm.register_forward_hook(lambda m, *_: m.running_var.data.__setitem__(0, torch.inf))
        out = step(self, batch)
        spoil.remove()
        seen.append(
            (out["loss"].isfinite().all(), all(torch.equal(before[k], v) for k, v in self.inner.state_dict().items()))
        )
        return out

    monkeypatch.setattr(Loop, "train_step", train_step)
    run = api.finetune(**{**FINETUNE, "max_steps": 3}, method="supervised", freeze_norm=False, output_dir=tmp_path)
    assert seen == [(True, True)] and int(run.progress.guard.total) == 1


def test_a_model_with_infinite_weights_is_not_opened(tmp_path):
    model = create_classifier("wrn_10_2", 3, pretrained=False, image_size=8)
    model.save_pretrained(tmp_path)
    assert open_model(LowLabelForImageClassification, tmp_path) is not None
    with torch.no_grad():
        next(model.parameters())[0] = torch.nan
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="NaN or infinite values in"):
        open_model(LowLabelForImageClassification, tmp_path)


def test_weights_that_lack_a_tensor_are_not_filled_with_noise(tmp_path):
    from safetensors.torch import load_file, save_file

    create_classifier("wrn_10_2", 3, pretrained=False, image_size=8).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop(next(name for name in state if name.endswith("weight")))
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lack .*weight"):
        open_model(LowLabelForImageClassification, tmp_path)

"""What a script does that every process of a launch runs: train, open the model, push it."""

import json
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hf_lowlabel import UserError, evaluate, finetune, predict
from hf_lowlabel.api.running import publish
from hf_lowlabel.distributed import rank
from hf_lowlabel.hub import push as pushing, splits
from hf_lowlabel.hub.upload import PushError, Uploaded
from hf_lowlabel.training import recording

DONE = Uploaded("org/name", "abc" * 8, "https://hub/org/name")


def main(settings: dict, folder: Path) -> None:
    save, model = recording.save_model, folder / "run" / "model.safetensors"

    def slow(network, into, write) -> None:  # the first process alone is here
        time.sleep(0.3)
        save(network, into, write)

    recording.save_model = slow
    run = finetune(**settings, output_dir=str(folder / "run"))
    assert (folder / "run" / "metrics.json").is_file()  # what is written last
    weights = {name: tensor.double().sum().item() for name, tensor in load_file(model).items()}
    scores = evaluate(str(run.folder), settings["dataset"])
    found = {"weights": weights, "accuracy": scores["accuracy"], "trained": run.metrics["accuracy"]}

    def upload(make, repo_id, **given) -> Uploaded:
        (folder / f"upload-{rank()}-{time.time_ns()}").touch()
        if repo_id == "org/full":
            raise PushError("The Hub is full.")
        return DONE

    pushing.upload = splits.upload = upload
    pushed = pushing.push(run.folder, "org/name"), splits.push_split(run.folder / "split.json", "org/name")
    if rank() == 0:  # the others are no part of this
        assert pushed == (DONE, DONE) == (pushing.push(run.folder, "org/name"),) * 2
    found["pushed"] = [one.repo_id for one in pushed]
    training = run.config.training
    training.push_to_hub = "org/name"
    publish(run)
    training.push_to_hub = "org/full"
    with pytest.raises(PushError, match="The Hub is full. Nothing is lost"):
        publish(run)
    run.folder = folder / "nowhere"
    with pytest.raises(UserError, match="Give a run folder or a saved model"):
        publish(run)
    run.folder = folder / "run"
    own = folder / ("all" if rank() == 0 else "fewer")
    with pytest.raises(UserError, match="The processes of this launch see different training images"):
        finetune(**{**settings, "dataset": str(own)}, output_dir=str(folder / "other"))
    assert predict(own, run.folder).rows
    (folder / f"rank-{rank()}.json").write_text(json.dumps(found))

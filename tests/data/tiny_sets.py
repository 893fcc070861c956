"""Pictures of a few pixels where a test wants them, and data as the verbs open them."""

from PIL import Image

from hf_lowlabel.arguments import Config
from hf_lowlabel.tasks import get_task


def pictures(root, *names):
    for name in names or [f"{i}.png" for i in range(4)]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(root / name)
    return root


def several(path, split="train"):
    """Opened as data of which an image may have several classes."""
    config = Config.from_flat("finetune", {"dataset": str(path), "task": "multilabel", "dataset_split": split})
    return get_task("multilabel").open(config.data)


def bare(source):
    """The ids without their folders."""
    return [id.rpartition("/")[2] for id in source.ids]

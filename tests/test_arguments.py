"""Settings: what a field's metadata asks of a value, names from elsewhere, YAML, and which settings go together."""

import math
from pathlib import Path

import numpy as np
import pytest

from hf_lowlabel.arguments import GROUPS, Config, known_settings, marked
from hf_lowlabel.errors import UserError
from hf_lowlabel.foreign_names import FOREIGN, OURS
from hf_lowlabel.methods import METHODS, find, verb_of
from hf_lowlabel.objective import FinetuneObjective
from hf_lowlabel.settings import recorded, resolve
from hf_lowlabel.tasks import TASKS, get_task
from hf_lowlabel.yaml_files import read_yaml


def finetune(**values) -> Config:
    return resolve(Config.from_flat("finetune", {"dataset": "digits", **values}))


def pretrain(method: str) -> Config:
    return resolve(Config("pretrain").replace(dataset="digits", model="resnet18", method=method, randaugment=True))


def refused(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("batch_size", 0, "batch_size is 0. It must be at least 1."),
        ("workers", -1, "workers is -1. It must be at least 0."),
        ("unlabeled_ratio", 0, "unlabeled_ratio is 0. It must be at least 1."),
        ("warmup_ratio", 1.5, "warmup_ratio is 1.5. It must be a share from 0 to 1."),
        ("epochs", 0.0, "epochs is 0.0. It must be above 0."),
        ("memory_budget", -2.0, "memory_budget is -2.0. It must be above 0."),
        ("min_scale", 1.5, "min_scale is 1.5. It must be above 0 and at most 1."),
        ("drop_rate", 1.0, "drop_rate is 1.0. It must be at least 0 and below 1."),
        ("seed", 2**32, "seed is 4294967296. It must be at least 0 and at most 4294967295."),
        ("max_bad", 1.01, "max_bad is 1.01. It must be a share from 0 to 1."),
        ("prior_until", -0.1, "prior_until is -0.1. It must be a share from 0 to 1."),
        ("test_fraction", 2.0, "test_fraction is 2.0. It must be a share from 0 to 1."),
        ("optimizer", "adamm", "unknown optimizer 'adamm': did you mean"),
        ("task", "segmentaton", "unknown task 'segmentaton': did you mean 'segmentation'"),
        ("window", 100, "window is a setting of --task segmentation, and this is a run of classification"),
    ],
)
def test_constraints(name, value, words):
    assert words in refused(finetune, **{name: value})


@pytest.mark.parametrize(
    "verb, given, usual",
    [
        ("pretrain", dict(method="byol", optimizer="adamw"), "0.3, is one for lars"),
        ("pretrain", dict(method="dino", optimizer="sgd"), "0.0005, is one for adamw"),
        ("finetune", dict(method="fixmatch", optimizer="adamw"), "0.03, is one for sgd"),
        ("finetune", dict(task="segmentation", optimizer="lars"), "is one for "),
        ("finetune", dict(method="fixmatch", preset="foundation", optimizer="sgd"), "0.001, is one for adamw"),
    ],
)
def test_a_rate_of_another_kind_of_optimizer_is_no_default(verb, given, usual):
    def resolved(**more):
        return resolve(Config.from_flat(verb, {"dataset": "digits", **given, **more}))

    said = refused(resolved)
    assert usual in said and f"nothing to {given['optimizer']}. Give --learning-rate too" in said
    assert resolved(learning_rate=1e-4).training.optimizer == given["optimizer"]
    assert finetune(optimizer="momentum").training.learning_rate == finetune(optimizer="sgd").training.learning_rate


@pytest.mark.parametrize("value", [0, 1, 0.5])
def test_a_share_includes_both_ends(value):
    assert finetune(max_bad=value).data.max_bad == value


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", ".inf", "-inf"])
def test_nothing_takes_nan_or_infinity(verb, value):
    numbers = [s for s in known_settings(verb).values() if s.kind is float]
    assert {"learning_rate", "weight_decay", "max_grad_norm", "head_lr"} <= {s.name for s in numbers}
    for s in numbers:
        message = refused(lambda s=s: resolve(Config.from_flat(verb, {"dataset": "digits", s.name: value})))
        assert message.startswith(f"{s.name} is ") and ("finite number" in message or "must be a number" in message)
    assert "finite number" in refused(finetune, task="segmentation", scale=[0.5, math.inf])


@pytest.mark.parametrize(
    "name, value, found",
    [
        ("learning_rate", "1e-2", 0.01),
        ("learning_rate", 1, 1.0),
        ("max_steps", "1e3", 1000),
        ("max_steps", np.int64(7), 7),
        ("max_steps", 8.0, 8),
        ("report_to", "tensorboard, wandb", ["tensorboard", "wandb"]),
        ("classes", (0, 1), ["0", "1"]),
        ("mask_ignore", "0,254", [0, 254]),
        ("dataset", Path("photos"), "photos"),
        ("output_dir", Path("runs/a"), "runs/a"),
        ("num_labels", None, None),
        ("flip", False, False),
    ],
)
def test_types(name, value, found):
    got = Config.from_flat("finetune", {name: value}).flat()[name]
    assert got == found and type(got) is type(found)


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("max_steps", True, "max_steps is True (bool). It must be a whole number or nothing."),
        ("max_steps", "many", "It must be a whole number or nothing."),
        ("max_steps", "1e999", "It must be a whole number or nothing."),
        ("seed", None, "seed is None (NoneType). It must be a whole number."),
        ("flip", "no", "It must be true or false or nothing."),
        ("split", 3, "It must be text or nothing."),
        ("classes", ["cat", True], "Every entry of the list must be text."),
        ("classes", [["cat"]], "Every entry of the list must be text."),
        ("mask_ignore", [1.5], "Every entry of the list must be a whole number."),
        ("report_to", {"a": 1}, "It must be a list."),
        ("method_args", ["tau"], "It must be a mapping."),
        ("method_args", {1: 2}, "Each of its keys must be a name."),
    ],
)
def test_other_types_are_refused(name, value, words):
    assert words in refused(Config.from_flat, "finetune", {name: value})


def test_objects_pass_through():
    """A data set, a network and a method of the user's own; what is written down is what they are."""

    class Mine(FinetuneObjective):
        def forward(self, batch, t):
            return {"loss": 0.0}

        defaults = {"batch_size": 3}

    rows, network = [("a.png", "cat")], object()
    config = finetune(dataset=rows, model=network, method=Mine)
    assert config.data.dataset == rows and config.model.model is network and config.method is Mine
    assert config.training.batch_size == 3 and config.training.optimizer == "sgd"
    Mine.defaults = {"momentum": 0.9}
    assert "unknown key in the defaults of Mine 'momentum'" in refused(finetune, method=Mine)
    assert recorded(config)["model"] == "an object in memory" and recorded(config)["method"] == "mine"
    assert "Give a name (`hf-lowlabel methods`) or a subclass of FinetuneObjective" in refused(finetune, method=object)


def test_flat_and_nested():
    config = finetune(method_args={"tau": 0.9}, mask_ignore=[], learning_rate=0.5)
    assert config.training.learning_rate == 0.5 and config.views.augment == "fixmatch-pytorch"
    assert list(config.flat()) == list(known_settings("finetune"))
    assert Config.from_flat("finetune", config.flat()) == config
    other = config.replace(learning_rate=0.1)
    other.data.mask_ignore.append(3)
    other.method_args["tau"] = 0.1
    assert config.training.learning_rate == 0.5 and not config.data.mask_ignore and config.method_args["tau"] == 0.9


def test_each_verb_has_its_own_settings():
    assert "l2_sp is a setting of pretrain only" in refused(Config.from_flat, "finetune", {"l2_sp": 1.0})
    assert "num_labels is a setting of finetune only" in refused(Config.from_flat, "pretrain", {"num_labels": 3})
    assert not {"num_labels", "prior", "scale"} & set(known_settings("pretrain"))


@pytest.mark.parametrize(
    "name, words",
    [
        ("lr", "lr is called learning_rate here."),
        ("learning-rate", "learning-rate is written learning_rate."),
        ("keep_best", "metric_for_best_model"),
        ("pool_size", "stored_size"),
        ("num_train_epochs", "epochs here. One epoch is a pass over the unlabeled images, with"),
        ("per_device_train_batch_size", "batch_size here. It counts the images of a whole optimizer step"),
        ("fp16", "precision"),
        ("gradient_clip_val", "max_grad_norm"),
        ("img_size", "image_size"),
        ("resume_from_checkpoint", "resume here. It is a switch"),
        ("hub_model_id", "push_to_hub"),
        ("num_label", "did you mean 'num_labels'"),
        ("l2_start", "l2_start is a setting of pretrain only, called l2_sp"),
    ],
)
def test_names_from_elsewhere(name, words):
    assert words in refused(Config.from_flat, "finetune", {name: 1})


def test_the_table_of_names_is_about_real_settings():
    known = known_settings()
    assert set(OURS) <= set(known) and not set(FOREIGN) & set(known)
    assert len(FOREIGN) == sum(len(names.split()) for names, _ in OURS.values())  # none stands twice


def test_tables_name_real_settings():
    known = known_settings()
    tasks = [get_task(name) for name in TASKS]
    assert all(set(values) <= set(known) for task in tasks for values in task.fallbacks.values())
    assert set().union(*(task.takes for task in tasks)) == marked("of_task")
    assert {name for verb in ("pretrain", "finetune") for name in known_settings(verb)} == set(known)
    assert sum(len(cls.__dataclass_fields__) for cls in GROUPS.values()) + 4 == len(known)
    for task in tasks:
        for verb in task.default_methods:
            resolve(Config.from_flat(verb, {"dataset": "digits", "task": task.name}))


@pytest.mark.parametrize(
    "values, words",
    [
        (dict(dataset=None), "No data is given"),
        (dict(dataset=""), "dataset is empty. Give it a value, or leave it out"),
        (dict(split="s.json", validation=3, test_fraction=0.1), "validation and test_fraction cannot be given beside"),
        (dict(lora_rank=2, adapter_width=8), "cannot be given together"),
        (dict(lora_rank=2, freeze=1), "freeze cannot be given with lora_rank"),
        (dict(adapter_width=2, from_scratch=True), "adapter_width cannot be given with from_scratch"),
        (dict(adapter_width=2, freeze=1), "freeze cannot be given with adapter_width"),
        (dict(lora_rank=2, from_scratch=True), "lora_rank cannot be given with from_scratch"),
        (dict(lora_rank=0), "lora_rank is 0. It must be at least 1"),
        (dict(adapter_width=0), "adapter_width is 0. It must be at least 1"),
        (dict(method="probe", lora_rank=2), "lora_rank means nothing to probe"),
        (dict(method="probe", adapter_width=2), "adapter_width means nothing to probe"),
        (dict(lora_alpha=2), "lora_alpha needs lora_rank"),
        (dict(method="probe", batch_size=3), "batch_size means nothing to probe"),
        (dict(method="knn", push_to_hub="a/b"), "knn leaves no network"),
        (dict(method="mean-teacher", prior="p"), "mean-teacher has no use for prior pseudo-labels"),
        (dict(method="self-training"), "self-training needs pseudo-labels"),
        (dict(method="byol"), "unknown finetune method 'byol'"),
        (dict(task="segmentation", scale=[1.5, 0.5]), "the smaller first"),
        (dict(task="segmentation", scale=[0.0, 0.5]), "scale is [0.0, 0.5]. It must be above 0."),
        (
            dict(task="segmentation", freeze=1),
            "freeze is a setting of --task classification and multilabel, and this is a run of segmentation",
        ),
    ],
)
def test_what_does_not_go_together(values, words):
    assert words in refused(finetune, **values)


def test_views_that_turn_are_refused_where_pixels_are_matched_by_place():
    for method in (name for name in METHODS if verb_of(name) == "pretrain"):
        if getattr(find(method), "geometry", False):
            said = refused(pretrain, method)
            assert f"randaugment cannot be given to {method}" in said
    assert pretrain("byol").views.randaugment


@pytest.mark.parametrize(
    "values, words",
    [
        (dict(min_scale=0.9), "min_scale means nothing to fixmatch, none of whose views changes by it. Leave it out"),
        (dict(randaugment=True, min_scale=0.9), "min_scale and randaugment mean nothing to fixmatch"),
        (dict(method="mean-teacher", augment="usb"), "augment means nothing to mean-teacher"),
        (
            dict(method="supervised", augment="usb", method_args=dict(strong=False)),
            "augment means nothing to supervised",
        ),
        (dict(method="probe", randaugment=True), "randaugment means nothing to probe"),
        (dict(task="segmentation", augment="usb"), "augment means nothing to unimatch"),
        (dict(method="s4l-exemplar", augment="usb"), "augment means nothing to s4l-exemplar"),
    ],
)
def test_settings_that_no_view_of_a_method_reads_are_refused(values, words):
    assert words in refused(finetune, **values)


def test_settings_of_views_are_taken_where_a_view_reads_them():
    for values in (
        dict(augment="usb"),
        dict(method="supervised", augment="usb"),
        dict(method="comatch", min_scale=0.5, randaugment=True, augment="usb"),
        dict(method="s4l-exemplar", min_scale=0.5, randaugment=True, augment="usb"),
        dict(method="mean-teacher", color=False),  # and has none
    ):
        views = vars(finetune(**values).views)
        assert values.items() >= {name: views[name] for name in values if name in views}.items()
    for method in (name for name in METHODS if verb_of(name) == "pretrain"):
        given = Config.from_flat("pretrain", dict(dataset="digits", method=method, min_scale=0.5))
        if method == "rotnet":
            assert "min_scale means nothing to rotnet" in refused(resolve, given)
        else:
            assert resolve(given).views.min_scale == 0.5


def test_help_names_the_methods_that_are_taken():
    said = known_settings()["method"].meta["help"]
    of = {name: get_task(name).default_methods for name in ("classification", "segmentation")}
    expected = "{pretrain} (masks: {masks_pretrain}), for finetune {finetune} (masks: {masks_finetune})".format(
        **of["classification"], **{f"masks_{verb}": name for verb, name in of["segmentation"].items()}
    )
    assert expected in said


def test_a_task_says_what_it_takes():
    assert finetune(task="segmentation", window=100).views.window == 100
    assert finetune(task="multilabel", freeze=1).model.freeze == 1
    assert "prior is a setting of --task classification," in refused(finetune, task="multilabel", prior="p")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"dataset: \xff\xfe", "is not UTF-8 text (byte 9)"),
        (b"[" * 1000, "is nested too deeply"),
        (b"- a\n- b", "holds a list"),
        (b"42", "holds a int"),
        (b"a: [1", "is not valid YAML"),
        (b"a: 2024-13-45", "is not valid YAML"),
        (b"a: !!python/object:os.system x", "is not valid YAML"),
        (b"a: \x00", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_sentence(content, words, tmp_path):
    (tmp_path / "a.yaml").write_bytes(content)
    assert words in refused(read_yaml, tmp_path / "a.yaml")


def test_yaml(tmp_path):
    (tmp_path / "a.yaml").write_text("learning-rate: 1e-2\nclasses: [a, b]\nflip: no\nepochs:\n")
    config = Config.from_flat("finetune", read_yaml(tmp_path / "a.yaml"))
    assert config.training.learning_rate == 0.01 and config.data.classes == ["a", "b"]
    assert config.views.flip is False and config.training.epochs is None
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}
    assert "is no regular file. Give the path of a YAML file" in refused(read_yaml, tmp_path)

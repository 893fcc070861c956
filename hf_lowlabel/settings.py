"""What the settings of a run come to: a YAML file, defaults of a method and its presets, what goes together."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from .arguments import Config, known_settings
from .errors import UserError, unknown
from .fields import check
from .methods import METHODS, Method

FALLBACKS: dict[str, dict] = {  # where neither the user nor the method says anything
    "pretrain": dict(
        max_steps=1000,
        batch_size=256,
        optimizer="lars",
        learning_rate=0.3,
        weight_decay=1e-6,
        lr_scheduler_type="cosine",
        warmup_ratio=0.0,
        head_lr=1.0,
        l2_sp=1e-2,
    ),
    "finetune": dict(
        max_steps=5000,
        batch_size=64,
        optimizer="sgd",
        learning_rate=0.03,
        weight_decay=5e-4,
        lr_scheduler_type="fixmatch",
        warmup_ratio=0.0,
        head_lr=1.0,
        unlabeled_ratio=7,
    ),
    "segmentation": dict(
        max_steps=10_000,
        batch_size=10,
        optimizer="adam",
        learning_rate=1e-4,
        weight_decay=0.0,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        head_lr=1.0,
        unlabeled_ratio=1,
        architecture="deeplabv3plus-os16",
        scale=[0.5, 1.5],
    ),
}
DEFAULT_METHODS = {
    ("pretrain", "classification"): "byol",
    ("pretrain", "segmentation"): "pixpro",
    ("finetune", "classification"): "fixmatch",
    ("finetune", "segmentation"): "cutmix",
}
_MASKS = {"mask_column", "classes", "mask_format", "mask_ignore"}
_DECODER = {"architecture", "architecture_args", "image_height", "scale", "window"}
_ADAPTERS = {"drop_rate", "freeze", "lora_rank", "lora_alpha", "adapter_width"}
TAKES = {  # transition: each task's object says which of the settings marked of_task it takes
    "classification": {"class_balanced", "prior", *_ADAPTERS},
    "segmentation": {*_MASKS, *_DECODER},
}


def methods_for(verb: str) -> list[str]:
    """Names of the methods of "pretrain" or "finetune"."""
    return [name for name, spec in METHODS.items() if spec.verb == verb]


def spec_of(config: Config) -> Method:
    """The row of METHODS that a configuration names, or one about the user's own class.

    Raises:
        UserError: no method of this verb has the name, or it is none for the task.
    """
    name, verb, task = config.method, config.verb, config.task
    if isinstance(name, type):
        own = {key: getattr(name, key, {}) for key in ("defaults", "presets")}
        return Method(verb, "", name.__name__, 0, "", "", prior="may", tasks=(task,), **own)
    if name not in methods_for(verb):
        raise unknown(f"{verb} method", name, methods_for(verb))
    spec = METHODS[name]
    if verb == "finetune" and task not in spec.tasks:
        able = [n for n in methods_for(verb) if task in METHODS[n].tasks]
        raise UserError(
            f"{name} is a method for {' and '.join(spec.tasks)}, and this is a run of {task}. Use "
            f"--task {spec.tasks[0]}, or --method with one of {', '.join(able)}."
        )
    return spec


def _label(config: Config) -> str:
    """The method as a message calls it."""
    return getattr(config.method, "__name__", config.method)


def resolve(config: Config, takes: Collection[str] | None = None) -> Config:
    """A copy in which the method's defaults and the preset fill every setting left at None.

    Args:
        config: what the user said.
        takes: those of the settings marked `of_task` that the task takes.

    Raises:
        UserError: a name that is not known, a value out of range, settings that do not go together.
    """
    verb, task = config.verb, config.task
    if (verb, task) not in DEFAULT_METHODS:
        raise unknown("task", task, [name for _, name in DEFAULT_METHODS])
    if config.method is None:
        config = config.replace(method=DEFAULT_METHODS[verb, task])
    spec, masks = spec_of(config), verb == "finetune" and task == "segmentation"
    # defaults and presets of a method for both tasks are those of its paper, for classification
    defaults, presets = ({}, {}) if masks and "classification" in spec.tasks else (spec.defaults, spec.presets)
    if config.preset is not None and config.preset not in presets:
        raise unknown(f"preset of {_label(config)}", config.preset, presets)
    said, chosen = config.flat(), {**defaults, **presets.get(config.preset, {})}
    if said.get("sharded"):
        _sharded(said)
    if said["epochs"] is not None or ("epochs" in chosen and said["max_steps"] is None):
        chosen["max_steps"] = said["max_steps"]  # the length is given in epochs: no default in steps
    if said["max_steps"] is not None:
        chosen["epochs"] = said["epochs"]
    values = {**({} if spec.frozen else FALLBACKS["segmentation" if masks else verb]), **chosen}
    arguments = {**values.pop("method_args", {}), **config.method_args}
    filled = {name: value for name, value in values.items() if said.get(name) is None}
    out = config.replace(f"defaults of {_label(config)}", method_args=arguments, **filled)
    validate(out, spec, TAKES[task] if takes is None else takes)
    return out


# ---- checks ---------------------------------------------------------------------------------------------------------
def validate(config: Config, spec: Method, takes: Collection[str]) -> None:
    """Every check that needs neither data nor weights.

    Args:
        config: with its defaults filled in.
        spec: the method's row.
        takes: those of the settings marked `of_task` that the task takes.

    Raises:
        UserError: a value out of range, settings that do not go together.
    """
    values, known = config.flat(), known_settings(config.verb)
    if isinstance(values["dataset"], (str, type(None))) and not values["dataset"]:
        raise UserError("No data is given. Name it with --dataset: a Hub id, a folder, a parquet file or 'digits'.")
    for s in known.values():
        check(s, values[s.name])
        if s.meta.get("of_task") and s.name not in takes and values[s.name] != s.default:
            raise UserError(f"{s.name} means nothing to a run of {config.task}. Leave it out, or take another --task.")
    for rule in (_scale, _draw, _frozen, _prior, _adapters):
        rule(values, spec, _label(config))


def _changed(values: dict, mark: str) -> list[str]:
    """The settings with a mark that are not at their default."""
    known = known_settings()
    return [
        name for name in known if name in values and known[name].meta.get(mark) and values[name] != known[name].default
    ]


def _scale(values: dict, spec: Method, method: str) -> None:
    scale = values.get("scale")
    if scale and (len(scale) != 2 or scale[0] > scale[1]):
        raise UserError(f"scale is {scale}. It must be two factors, the smaller first, such as 0.5 1.5.")


def _draw(values: dict, spec: Method, method: str) -> None:
    drawn = _changed(values, "draw")
    if values["split"] and drawn:
        raise UserError(
            f"{_and(drawn)} cannot be given beside a split, which says already which images are held out. "
            "Leave it out, or give it to `hf-lowlabel split`."
        )


def _frozen(values: dict, spec: Method, method: str) -> None:
    if not spec.frozen:
        return
    if values["push_to_hub"] and method != "probe":
        raise UserError(
            f"{method} leaves no network that push_to_hub could push. Leave it out, and give the run's "
            "priors.safetensors to a run of probe or self-training (--prior)."
        )
    given = _changed(values, "trains")
    if given:
        raise UserError(
            f"{_and(given)} mean{'' if given[1:] else 's'} nothing to {method}, which trains no network. Leave "
            f"{'them' if given[1:] else 'it'} out, or take another --method."
        )


def _prior(values: dict, spec: Method, method: str) -> None:
    if values.get("prior") and not (spec.rule or spec.prior):
        able = [name for name, row in METHODS.items() if row.rule or row.prior]
        raise UserError(
            f"{method} has no use for prior pseudo-labels. Leave --prior out, or take one of these methods: "
            f"{', '.join(able)}."
        )
    if spec.prior == "must" and not values["prior"]:
        raise UserError(
            f"{method} needs pseudo-labels. Give --prior FILE: `hf-lowlabel priors` writes one, and so does a run of "
            "probe, knn or label-spreading (priors.safetensors)."
        )


def _adapters(values: dict, spec: Method, method: str) -> None:
    small = [name for name in ("lora_rank", "adapter_width") if values.get(name)]
    if len(small) == 2:
        raise UserError("lora_rank and adapter_width cannot be given together. Leave one of them out.")
    if values.get("lora_alpha") and not values["lora_rank"]:
        raise UserError("lora_alpha needs lora_rank. Give --lora-rank too, or leave --lora-alpha out.")
    if small and values["freeze"]:
        raise UserError(f"freeze cannot be given with {small[0]}, which leaves every stage as it is. Leave it out.")
    if small and values["from_scratch"]:
        raise UserError(
            f"{small[0]} cannot be given with from_scratch: adapters leave all other weights as they are, and random "
            f"ones are of no use. Give --model with weights, or leave out --{small[0].replace('_', '-')}."
        )


def _sharded(said: dict) -> None:
    """Asked of what the user said, before a default length is filled in."""
    wrong = [n for n in ("epochs", "split", "unlabeled_dataset", "label_column", "streaming") if said[n] is not None]
    if wrong:
        raise UserError(
            f"{_and(wrong)} cannot be given with sharded: images that are read as they come are neither counted nor "
            "told apart nor kept. Leave it out, or take --streaming for data that a disk holds."
        )
    if said["max_steps"] is None:
        raise UserError("sharded needs --max-steps N, because nobody knows the number of images.")


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# ---- files ----------------------------------------------------------------------------------------------------------
def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; keys may use '-' for '_'.

    Raises:
        UserError: there is no such file, or it is not UTF-8, not YAML, nested too deeply or not a mapping.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no configuration file at {path}. Give the path of a YAML file.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply to be read. Write one 'name: value' a line.") from error
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2024-13-45 is a ValueError
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}. Write 'name: value' lines instead.")
    return {str(k).replace("-", "_"): v for k, v in values.items()}


def to_dict(config: Config) -> dict[str, Any]:
    """The settings of a run as training.yaml records them: flat, and an object that has no name by what it is."""

    def recorded(value: Any) -> Any:
        if isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        plain = value is None or isinstance(value, (bool, int, float, str, list, dict))
        return value if plain else f"a {type(value).__name__} in memory"

    return {name: recorded(value) for name, value in config.flat().items()}

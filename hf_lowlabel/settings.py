"""Resolves the settings of a run: YAML file, method defaults, presets, and checks of combinations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .arguments import Config, known_settings, marked
from .errors import UserError, one_image, unknown
from .fields import check
from .methods import METHODS, Method, check_hyperparameters, find, hyperparameters, methods_for, name_of
from .missing_inputs import refuse_no_data
from .models.began import begins_with_probe, pretrained
from .objective import Objective, check_views
from .tasks import TASKS, get_task
from .tasks.base import Task
from .text import brief, in_memory
from .views.table import VIEWS, read_by
from .yaml_files import GIVEN_SPLIT

GENTLE = 0.1  # of a paper's learning rate, where training starts from a fitted head (LP-FT, Kumar et al. 2022)


def resolve(config: Config) -> Config:
    """A copy whose method is a class, and in which its defaults and the preset fill every setting left at None.

    Args:
        config: what the user said.

    Raises:
        UserError: a name that is not known, a value out of range, settings that do not go together.
    """
    verb, task = config.verb, get_task(config.task)
    method = task.method(verb, config.method if config.method is not None else task.default_methods[verb])
    if not isinstance(method, type) or not issubclass(method, Method) or method.verb != verb:
        base = "PretrainObjective" if verb == "pretrain" else "FinetuneObjective"
        raise UserError(
            f"The method of {verb} is {brief(method)}. Give a name (`hf-lowlabel methods`) or a subclass of {base}."
        )
    if issubclass(method, Objective) and method.forward is Objective.forward:
        raise UserError(
            f"{method.__name__} has no forward(batch, t), the loss of a method. See help(hf_lowlabel.Objective)."
        )
    if issubclass(method, Objective):
        check_views(method)
    said, chosen = config.flat(), of_method(task, method, config.preset)
    for name in chosen:
        if name not in said:
            raise unknown(f"key in the defaults of {method.__name__}", name, said)
    if said.get("sharded"):
        _sharded(said)
    if said["epochs"] is not None or ("epochs" in chosen and said["max_steps"] is None):
        chosen["max_steps"] = said["max_steps"]  # the length is given in epochs: no default in steps
    if said["max_steps"] is not None:
        chosen["epochs"] = said["epochs"]
    values = {**({} if method.frozen else task.fallbacks[verb]), **chosen}
    arguments = {**values.pop("method_args", {}), **config.method_args}
    filled = {name: value for name, value in values.items() if said[name] is None}
    _own_rate(said, values, filled, name_of(method))
    if "head_lr" in filled and "head_lr" not in chosen and (said["init_from"] or not pretrained(said)):
        filled["head_lr"] = 1.0  # head and body are both new, or neither
    if verb == "finetune" and config.preset is None and not config.model.from_scratch and "batch_size" in values:
        scaled_rate(filled, said["batch_size"], values["batch_size"], gently=head_is_fitted(said, task))
    out = config.replace(method=method, method_args=arguments, **filled)
    out.filled = frozenset(filled)
    validate(out, task)
    return out


def of_method(task: Task, method: type[Method], preset: str | None) -> dict[str, Any]:
    """The settings of a method's paper, and of a preset. Those of finetuning are for the first of its tasks."""
    of_paper = method.verb == "pretrain" or task.name == method.tasks[0]
    defaults, presets = (method.defaults, method.presets) if of_paper else ({}, {})
    if method.verb == "finetune" and not method.frozen:
        presets = {**task.presets, **presets}
    if preset is not None and preset not in presets:
        raise unknown(f"preset of {name_of(method)}", preset, presets)
    return {**defaults, **presets.get(preset, {})}


def filled_in(verb: str, task: str | None, method: str | None, preset: str | None) -> tuple[str, dict[str, Any]]:
    """(name of the method, what it makes of settings that are left at None), for help."""
    of = get_task(task or Config(verb).task)
    found: Any = of.method(verb, method or of.default_methods[verb])
    if found.verb != verb:
        raise unknown(f"method of {verb}", str(method), methods_for(verb))
    values = {**({} if found.frozen else of.fallbacks[verb]), **of_method(of, found, preset)}
    arguments = {**hyperparameters(found), **values.pop("method_args", {})}
    return name_of(found), {**values, "method_args": " ".join(f"{k}={v}" for k, v in arguments.items())}


def scaled_rate(filled: dict[str, Any], batch_size: int | None, of_rate: int, gently: bool) -> None:
    """A default learning rate is that of a stated batch; on pretrained weights a smaller one takes its share of it.

    gently: a tenth of that, since the features are to change less than those that learn from nothing.
    """
    if "learning_rate" in filled:
        filled["learning_rate"] *= min(batch_size or of_rate, of_rate) / of_rate * (GENTLE if gently else 1)


def usual_rate(config: Config, task: Task) -> float | None:
    """The learning rate of a run whose default is `GENTLE`, were it not; None where it is another's or was given."""
    filled = "learning_rate" in config.filled and config.preset is None
    gently = filled and head_is_fitted(config.flat(), task)
    return config.training.learning_rate / GENTLE if gently else None


def head_is_fitted(said: dict[str, Any], task: Task) -> bool:
    """Whether the whole network trains on from a head that knows what its features do (training/head.py)."""
    part = said["lora_rank"] or said["adapter_width"]  # which start at nothing
    return "head_init" in task.takes and begins_with_probe(said) and not part


# an optimizer's step at a rate is about as long as that of the others of its kind
KINDS = {"sgd": "sgd", "momentum": "sgd", "lars": "lars", "adam": "adam", "adamw": "adam"}


def _own_rate(said: dict[str, Any], values: dict[str, Any], filled: dict[str, Any], name: str) -> None:
    """UserError for an optimizer of another kind than the one that a default rate was found with."""
    given, usual = said["optimizer"], values.get("optimizer")
    if "learning_rate" in filled and given in KINDS and usual and KINDS[given] != KINDS[usual]:
        raise UserError(
            f"The default learning rate of {name}, {filled['learning_rate']:g}, is one for {usual}, and means nothing "
            f"to {given}. Give --learning-rate too, or leave --optimizer out."
        )


# ---- checks ---------------------------------------------------------------------------------------------------------
def validate(config: Config, task: Task) -> None:
    """Every check that needs neither data nor weights; `config` has its defaults filled in.

    Raises:
        UserError: a value out of range, settings that do not go together.
    """
    values, known, method = {**config.flat(), "verb": config.verb}, known_settings(config.verb), config.method
    refuse_no_data(values["dataset"])
    for s in known.values():
        check(s, values[s.name])
        if s.meta.get("of_task") and s.name not in task.takes and values[s.name] != s.default:
            able = [name for name in TASKS if s.name in get_task(name).takes]
            raise UserError(
                f"{s.name} is a setting of --task {' and '.join(able)}, and this is a run of {task.name}. Leave it out."
            )
    check_hyperparameters(method, config.method_args)
    for rule in (_scale, _turned, _views, _alone, _draw, _frozen, _prior, _adapters, _start):
        rule(values, method, name_of(method))


def _changed(values: dict, mark: str) -> list[str]:
    """The settings with a mark that are not at their default."""
    known = known_settings()
    return [
        name for name in known if name in values and known[name].meta.get(mark) and values[name] != known[name].default
    ]


def _scale(values: dict, method: type[Method], name: str) -> None:
    scale = values.get("scale")
    if scale and (len(scale) != 2 or scale[0] > scale[1]):
        raise UserError(f"scale is {scale}. It must be two factors, the smaller first, such as 0.5 1.5.")


def _turned(values: dict, method: type[Method], name: str) -> None:
    if values.get("randaugment") and getattr(method, "geometry", False):
        raise UserError(
            f"randaugment cannot be given to {name}, which matches pixels of two views by where each was cut: "
            "RandAugment turns, shears and moves them besides. Leave --randaugment out, or take another --method."
        )


def _views(values: dict, method: type[Method], name: str) -> None:
    """What no view of a method reads is refused; `color` is not, since views without colours do as it says."""
    kinds = kinds_of_views(values, method)
    if not kinds <= VIEWS.keys():  # of a method of one's own: named where the views are made
        return
    known, read = known_settings(), read_by(kinds, values["randaugment"])
    given = [n for n in ("augment", "min_scale", "randaugment") if values[n] != known[n].default and n not in read]
    if given:
        raise UserError(
            f"{_and(given)} mean{'' if given[1:] else 's'} nothing to {name}, none of whose views changes by "
            f"{'them' if given[1:] else 'it'}. Leave {'them' if given[1:] else 'it'} out, or take another --method."
        )


def kinds_of_views(values: dict, method: type[Method]) -> set[str]:
    """The kinds of view of a method that are single images' own; a hyperparameter named as a view switches it off."""
    if method.frozen or (values["verb"] == "finetune" and "scale" in get_task(values["task"]).takes):
        return set()  # whole images, or views of an image and its mask together
    if values["verb"] == "pretrain":
        return set(getattr(method, "views", ()))
    views = (*getattr(method, "labeled_views", {}).items(), *getattr(method, "unlabeled_views", {}).items())
    return {kind for key, kind in views if values["method_args"].get(key, True) is not False}


def _alone(values: dict, method: type[Method], name: str) -> None:
    parts = values["gradient_accumulation_steps"]
    batch_size = values["batch_size"]
    if values["verb"] == "pretrain" and batch_size is not None and batch_size // parts < 2:
        raise one_image(batch_size, parts)
    if batch_size is not None and batch_size % parts and not method.frozen:
        raise UserError(
            f"A batch_size of {batch_size} cannot be cut into {parts} parts of the same size, as "
            f"gradient_accumulation_steps asks. Give a --batch-size that is a multiple of {parts}."
        )


def _draw(values: dict, method: type[Method], name: str) -> None:
    drawn = _changed(values, "draw")
    if values["split"] and drawn:
        raise UserError(
            f"{_and(drawn)} cannot be given beside a split, which says already which images are held out. "
            "Leave it out, or give it to `hf-lowlabel split`."
        )


def _frozen(values: dict, method: type[Method], name: str) -> None:
    if values.get("architecture") == "knn" and name != "knn":
        raise UserError(f"The architecture knn is what --method knn fits, not {name}. Take another --architecture.")
    if not method.frozen:
        return
    if values["push_to_hub"] and not (hasattr(method, "head") or getattr(method, "of_pixels", False)):
        raise UserError(
            f"{name} leaves no network that push_to_hub could push. Leave it out, and give the run's "
            "priors.safetensors to a run of probe or self-training (--prior)."
        )
    if getattr(method, "of_pixels", False) and values["architecture"] != method.defaults["architecture"]:
        raise UserError(
            f"{name} stands on the encoder's maps by itself, so --architecture {values['architecture']} means nothing "
            "to it. Leave it out, or take another --method."
        )
    given = _changed(values, "trains")
    if given:
        raise UserError(
            f"{_and(given)} mean{'' if given[1:] else 's'} nothing to {name}, which trains no network. Leave "
            f"{'them' if given[1:] else 'it'} out, or take another --method."
        )


def _prior(values: dict, method: type[Method], name: str) -> None:
    if values.get("prior") and not (method.prior):
        able = [n for n in METHODS if find(n).prior]
        raise UserError(
            f"{name} has no use for prior pseudo-labels. Leave --prior out, or take a method of {', '.join(able)}."
        )
    if method.prior == "must" and not values["prior"]:
        raise UserError(
            f"{name} needs pseudo-labels. Give --prior FILE: `hf-lowlabel priors` writes one, and so does a run of "
            "probe, knn or label-spreading (priors.safetensors)."
        )


def _start(values: dict, method: type[Method], name: str) -> None:
    """What a run reads late is there when it starts."""
    start = values.get("init_from")
    if start and not any(Path(start, file).is_file() for file in ("config.json", "objective.safetensors")):
        raise UserError(
            f"There is neither config.json nor objective.safetensors in {start}. Give --init-from a run folder, a "
            "saved model or one of a run's checkpoints/step-*."
        )


def _adapters(values: dict, method: type[Method], name: str) -> None:
    if values.get("freeze_encoder") and values["from_scratch"]:
        raise UserError(
            "freeze_encoder cannot be given with from_scratch: random features are no ground to learn on. Give --model "
            "with weights, or leave --freeze-encoder out."
        )
    small = [name for name in ("lora_rank", "adapter_width") if values.get(name)]
    if len(small) == 2:
        raise UserError("lora_rank and adapter_width cannot be given together. Leave one of them out.")
    if values.get("lora_alpha") and not values["lora_rank"]:
        raise UserError("lora_alpha needs lora_rank. Give --lora-rank too, or leave --lora-alpha out.")
    if values.get("layer_decay") and (small or values.get("freeze_encoder")):
        raise UserError(
            f"layer_decay cannot be given with {(small or ['freeze_encoder'])[0]}, which leaves the layers of the "
            "encoder as they are. Leave one of them out."
        )
    if small and values.get("freeze"):
        raise UserError(f"freeze cannot be given with {small[0]}, which leaves every stage as it is. Leave it out.")
    if small and values["from_scratch"]:
        raise UserError(
            f"{small[0]} cannot be given with from_scratch: adapters leave all other weights as they are, and random "
            f"ones are of no use. Give --model with weights, or leave out --{small[0].replace('_', '-')}."
        )


def _sharded(said: dict) -> None:
    """Asked of what the user said, before a default length is filled in."""
    wrong = [n for n in ("epochs", "split", "unlabeled_dataset", "label_column", "streaming") if said[n] is not None]
    wrong += [n for n in ("pages", "value_range") if said[n]]
    if wrong:
        raise UserError(
            f"{_and(wrong)} cannot be given with sharded: images that are read as they come are neither counted nor "
            "told apart nor kept. Leave it out, or take --streaming for data that a disk holds."
        )
    if said["max_steps"] is None:
        raise UserError("sharded needs --max-steps N, since the number of images is unknown.")


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def recorded(config: Config) -> dict[str, Any]:
    """The settings of a run as training.yaml records them: flat, and an object that has no name by what it is."""

    known = known_settings(config.verb)

    def text(name: str, value: Any) -> Any:
        if isinstance(value, type):
            return name_of(value)
        if name == "split" and value and Path(value).name == GIVEN_SPLIT:  # a run folder may be moved
            return GIVEN_SPLIT
        return in_memory(value) if known[name].kind is object and not isinstance(value, (str, type(None))) else value

    return {name: text(name, value) for name, value in config.flat().items()}


def may_change() -> frozenset[str]:
    """Settings that a resumed run may have others of."""
    return marked("may_change")


def private_names() -> frozenset[str]:
    """Settings that say nothing about a model: where a run is and what becomes of it."""
    return marked("private")

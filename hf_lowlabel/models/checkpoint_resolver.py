"""Where a model name leads: timm's registry, a Hub repository or a local folder. Only JSON and safetensors are read."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)
from torch import Tensor, nn

from ..errors import UserError, hub_is_down, unknown
from ..files import read_json
from ..licences import license_of
from ..text import was_in_memory
from . import transformers_layout as layout
from .configuration_segmenter import LowLabelSegmenterConfig
from .image_processors import preprocessing_of
from .translation import Translation

log = logging.getLogger(__name__)
HUB_PREFIXES = ("hf_hub:", "hf-hub:")
PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt", "*.pkl")
# arguments of timm.create_model that read other files
LEADS_OUT = {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
TYPES = {  # of what is read of a config.json; None passes
    **dict.fromkeys(
        ("architecture", "model_type", "encoder", "problem_type", "interpolation", "crop_mode", "license"), str
    ),
    **dict.fromkeys(("model_args", "architecture_args", "pretrained_cfg", "id2label", "label2id"), dict),
    **dict.fromkeys(("num_classes", "num_features", "num_channels", "image_size", "size_divisor"), int),
    **dict.fromkeys(("mean", "std", "image_mean", "image_std", "input_size"), (list, tuple)),
    **dict.fromkeys(("label_names",), (list, dict)),
    **dict.fromkeys(("crop_pct",), (int, float)),
}
FROM_SCRATCH = "start from scratch (--from-scratch of finetune and pretrain, pretrained=False in Python)"


@dataclass
class Checkpoint:
    """An architecture, how it was built, and its weights if there are any."""

    source: str
    architecture: str
    cfg: dict  # timm's pretrained_cfg
    model_args: dict
    num_classes: int  # of the checkpoint; 0 without a head
    label_names: list[str] | None
    weights: Path | None  # model.safetensors; in transformers' layout the index of a sharded one, too
    translation: Translation | None = None  # of a repository in transformers' layout
    module: nn.Module | None = None  # of a network in memory, which `state` is of
    state: dict[str, Tensor] | None = None

    @property
    def filled(self) -> bool:
        return self.weights is not None or self.state is not None


def locate(name: str, pretrained: bool, revision: str | None) -> Checkpoint:
    """Local folders win over Hub ids, and whatever has no slash is a timm name."""
    if was_in_memory(name):  # as training.yaml of a run has it
        raise UserError(f"The run started from {name}, which is not in its folder. Give the model itself.")
    local = name.removeprefix("local-dir:")
    if os.path.isdir(local):
        config = _read_config(Path(local, "config.json"), local)
        if "architecture" not in config:
            return _from_transformers(config, local, pretrained, fetcher(local))
        return _from_config(config, local, find_weights(local) if pretrained else None)
    if local != name or local.startswith((".", "~", os.sep)) or os.path.exists(local):
        raise UserError(f"There is no folder {local!r}. Give one that holds config.json and model.safetensors.")
    if not name.startswith(HUB_PREFIXES) and "/" not in name:
        return _from_timm(name, pretrained, revision)
    refuse_gone(name, revision)
    repo, revision = address(name, revision)
    config = _read_config(_download(repo, ["config.json"], revision), repo)
    if "architecture" not in config:
        return _from_transformers(config, repo, pretrained, fetcher(repo, revision))
    return _from_config(config, repo, _download(repo, ["model.safetensors"], revision) if pretrained else None)


def refuse_gone(name: str, revision: str | None = None) -> None:
    """UserError for what can only be a folder, or looks like one that lies here and does not: the Hub, asked in vain,
    takes its time."""
    repo, at = address(name, revision)
    if name.startswith(HUB_PREFIXES) or os.path.isdir(name):
        return
    path = Path(repo).expanduser()
    siblings = [str(p) for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    is_id = repo.count("/") == 1 and not repo.startswith((".", "~", os.sep))
    if is_id and (
        not path.parent.is_dir() or isinstance(try_to_load_from_cache(repo, "config.json", revision=at), str)
    ):
        return
    near = difflib.get_close_matches(str(path), siblings, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    on_hub = f"; for that of the Hub write hf_hub:{repo}" if is_id else " or a Hub id (org/name)"
    raise UserError(f"There is no folder {name!r}. {hint}Give a run folder or a saved model{on_hub}.")


def address(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """(Hub id, revision) of a name as users and timm write it: org/name, hf_hub:org/name@revision."""
    repo = next((name.removeprefix(p) for p in HUB_PREFIXES if name.startswith(p)), name)
    repo, _, at = repo.partition("@")
    return repo, revision or at or None


def fetcher(name: str, revision: str | None = None) -> Callable[[list[str]], Path | None]:
    """What gives the first of some files that a local folder or a Hub repository has, or None."""
    if os.path.isdir(name):
        return lambda names: _beside(Path(name), names)
    repo, revision = address(name, revision)
    return lambda names: _download(repo, names, revision, missing=True)


def model_config(name: str, revision: str | None = None) -> dict:
    """config.json of a local folder or Hub repository; {} where a folder has none."""
    if os.path.isdir(name):
        path = Path(name, "config.json")
        return _read_config(path, name) if path.is_file() else {}
    refuse_gone(name, revision)
    repo, revision = address(name, revision)
    return _read_config(_download(repo, ["config.json"], revision, otherwise="give a folder"), name)


def download_model(name: str, revision: str | None = None) -> Path:
    """The folder in the Hub's cache that holds config.json and model.safetensors of a repository."""
    repo, revision = address(name, revision)
    _download(repo, ["config.json"], revision, otherwise="give a folder")
    return _download(repo, ["model.safetensors"], revision, otherwise="give a folder").parent


def find_weights(folder: str | os.PathLike) -> Path:
    """model.safetensors of a local folder; pickled weights are refused, never opened."""
    path = Path(folder)
    if (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    if (path / "model.safetensors.index.json").is_file():
        raise UserError(
            f"The weights in {path} are sharded, and timm reads only one model.safetensors. "
            "Save them again with max_shard_size='1000GB'."
        )
    pickled = sorted(p.name for pattern in PICKLES for p in path.glob(pattern))
    if pickled:
        raise UserError(
            f"The weights in {path} are only pickled ({', '.join(pickled)}), and opening a pickle can run code. Where "
            "you trust the file, convert it with safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
            "'model.safetensors')."
        )
    raise UserError(f"There is no model.safetensors in {path}. Give a folder that save_pretrained wrote.")


def _from_timm(name: str, pretrained: bool, revision: str | None) -> Checkpoint:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown("model", name, timm.list_models())
    tags = [n.partition(".")[2] for n in timm.list_models(f"{architecture}.*", include_tags=True)]
    if tag and tag not in tags:
        raise unknown(f"weights of {architecture}", tag, tags)
    if (known := timm.get_pretrained_cfg(name)) is None:  # registered by somebody, whom timm does not make write one
        raise UserError(
            f"timm knows nothing of the images of {name!r}. Beside the function that registers it, say default_cfgs = "
            f'generate_default_cfgs({{"{name}": {{"input_size": (3, H, W), "classifier": "fc"}}}}).'
        )
    cfg = known.to_dict()
    if not pretrained:
        return Checkpoint(f"random weights ({architecture})", architecture, cfg, {}, 0, None, None)
    if not cfg.get("hf_hub_id"):
        raise UserError(
            f"There are no safetensors weights of {name!r} on the Hub. Give another model or a folder, or "
            f"{FROM_SCRATCH}."
        )
    candidates = ["model.safetensors"]
    if special := cfg.get("hf_hub_filename"):  # open_clip repositories name their files differently
        candidates = [special.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors", *candidates]
    weights = _download(cfg["hf_hub_id"], candidates, revision)
    source = f"{architecture}.{cfg['tag']}" if cfg.get("tag") else architecture
    return Checkpoint(source, architecture, cfg, {}, cfg.get("num_classes", 0), None, weights)


def _from_config(config: dict, source: str, weights: Path | None) -> Checkpoint:
    architecture = config["architecture"]
    if config.get("model_type") == LowLabelSegmenterConfig.model_type:
        encoder = config.get("encoder")
        raise UserError(
            f"{source} is a segmenter ({architecture} on {encoder}), where the weights of an encoder are asked for. "
            f"Give those its encoder began with, such as --model {encoder}; with --task segmentation --init-from "
            "continues from a whole segmenter."
        )
    check_architecture(architecture, config.get("model_args"), source)
    known = timm.models.PretrainedCfg.__dataclass_fields__
    cfg = config.get("pretrained_cfg") or config  # timm's early layout has one level
    cfg = {k: v for k, v in cfg.items() if k in known}
    names = config.get("label_names") or cfg.get("label_names") or None
    names = list(names.values()) if isinstance(names, dict) else names
    classes = config.get("num_classes", cfg.get("num_classes", 0))
    source = source if weights else f"random weights ({architecture})"
    return Checkpoint(source, architecture, cfg, dict(config.get("model_args") or {}), classes, names, weights)


def _from_transformers(
    config: dict, source: str, pretrained: bool, fetch: Callable[[list[str]], Path | None]
) -> Checkpoint:
    """A repository in transformers' layout. fetch: the first of the files that it has, or None."""
    translation = layout.translation_of(config, source)  # an error comes before any weights do
    cfg = timm.get_pretrained_cfg(translation.architecture).to_dict()
    cfg = {k: v for k, v in cfg.items() if k not in ("tag", "hf_hub_id", "pool_size", "license", "num_classes")}
    cfg["input_size"] = [3, translation.image_size, translation.image_size]
    cfg["fixed_input_size"] = cfg.get("fixed_input_size", False) or translation.fixed
    processor = fetch(["preprocessor_config.json", "processor_config.json"])
    if processor is not None:
        cfg |= preprocessing_of(processor.parent, source)
        if cfg.pop("flip_channels", False):
            if "encoder_config" not in translation.model_args:
                raise UserError(f"The image processor of {source} takes blue first, and no network here does.")
            translation.model_args["flip_channels"] = True
    else:
        log.warning(
            "there is no preprocessor_config.json in %s: %d px, mean %s and std %s of timm's %s are taken",
            source,
            translation.image_size,
            list(cfg["mean"]),
            list(cfg["std"]),
            translation.architecture,
        )
    if (readme := fetch(["README.md"])) is not None:
        cfg["license"] = license_of(readme)
    names = layout.class_names(config) if translation.head else None
    # transformers leaves two classes of no name out of config.json
    classes = layout.parsed_config(config, source).num_labels if translation.head else 0
    weights = fetch(["model.safetensors", "model.safetensors.index.json"]) if pretrained else None
    if pretrained and weights is None:
        raise UserError(without_safetensors(source))
    if weights is not None and weights.name.endswith(".index.json"):
        for shard in layout.shards(weights, translation, source):
            if fetch([shard]) is None:
                raise UserError(f"There is no {shard} in {source}, which its index names. Copy or download it again.")
    name = source if weights else f"random weights ({translation.architecture})"
    return Checkpoint(name, translation.architecture, cfg, translation.model_args, classes, names, weights, translation)


def _beside(folder: Path, names: list[str]) -> Path | None:
    """The first of the files that a local folder has; where weights are asked for, pickled ones are an error."""
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    return find_weights(folder) if found is None and "model.safetensors" in names else found


def check_architecture(architecture: str, model_args: dict | None, source: str) -> None:
    """A configuration may name an architecture and its arguments, and nothing that leads to another file."""
    if not timm.is_model(architecture):
        said = unknown(f"architecture in {source}", architecture, timm.list_models())
        raise UserError(f"{said}. One of your own is known in Python, once the module that registers it is imported")
    strange = sorted(LEADS_OUT & set(model_args or {}))
    if strange:
        raise UserError(
            f"The model_args of {source} may not read other files, as {', '.join(strange)} can. Drop what is no "
            f"argument of {architecture}, or take another source."
        )


def _read_config(path: Path, source: str) -> dict:
    """config.json, with what is read of it of the right types. Raises UserError."""
    advice = "Give a folder that save_pretrained wrote, or save the model again."
    if not path.is_file():
        raise UserError(f"There is no config.json in {source}. {advice}")
    config = read_json(path, advice)
    if not isinstance(config, dict):
        raise UserError(f"The config.json in {source} holds no mapping. {advice}")
    for key, kinds in TYPES.items():
        if key == "image_size" and not {"architecture", "encoder"} & set(config):
            kinds = (int, list)  # transformers' own networks may have (height, width)
        found = [c[key] for c in (config, config.get("pretrained_cfg")) if isinstance(c, dict) and key in c]
        wrong = [value for value in found if value is not None and not isinstance(value, kinds)]
        if wrong:
            raise UserError(f"{key!r} in the config.json of {source} is {wrong[0]!r:.60}. {advice}")
    return config


def _download(
    repo: str, candidates: list[str], revision: str | None, missing: bool = False, otherwise: str = FROM_SCRATCH
) -> Path | None:
    """The first of the files that the Hub repository has; none is an error, or None where they may be `missing`.
    otherwise: what else to do without the Hub."""
    for filename in candidates:
        try:
            return Path(hf_hub_download(repo, filename, revision=revision))
        except LocalEntryNotFoundError as error:
            if missing and _known_missing(repo, filename, revision):
                continue
            raise UserError(
                f"There is no folder {repo} here, the Hub cannot be reached, and there is no cached {filename} of it. "
                f"Check the spelling, connect, or {otherwise}."
            ) from error
        except EntryNotFoundError:
            continue
        except GatedRepoError as error:
            raise UserError(
                f"{repo} is gated. Accept its conditions on its page on the Hub and log in with `hf auth login`, or "
                "take another model."
            ) from error
        except RevisionNotFoundError as error:
            raise UserError(
                f"There is no revision {revision!r} of {repo} on the Hub. Give --model-revision a branch, tag or "
                "commit of it, or leave it out."
            ) from error
        except (HfHubHTTPError, HFValidationError) as error:
            if down := hub_is_down(error):
                raise UserError(f"{down}, or give a local folder in the place of {repo}.") from error
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"There is no model {repo!r} on the Hub that is open to you ({first}). Check the spelling, log in with "
                "`hf auth login`, or give a timm name or a folder."
            ) from error
        except Exception as error:  # the network's own, of whichever client huggingface_hub uses
            raise UserError(
                f"{filename} of {repo} could not be downloaded ({type(error).__name__}: {error}). Try again, or give a "
                "local folder."
            ) from error
    if missing:
        return None
    raise UserError(
        without_safetensors(repo)
        if candidates[-1] == "model.safetensors"
        else f"There is no {candidates[-1]} in {repo}. Give a repository of a model."
    )


def _known_missing(repo: str, filename: str, revision: str | None) -> bool:
    """Without the Hub: whether the cache says that the repository has no such file, or none that features need."""
    return filename == "README.md" or try_to_load_from_cache(repo, filename, revision=revision) is _CACHED_NO_EXIST


def without_safetensors(repo: str) -> str:
    return (
        f"There is no model.safetensors in {repo}. Take a repository or revision with safetensors (opening a pickle "
        "can run code), or convert it with the Hub's space safetensors/convert."
    )

"""What classifier and backbone share: a timm network inside a transformers model, and checkpoints in timm's layout.

A saved folder holds three files (and code, where timm lacks the network: travelling.py). `config.json` is timm's own
(`architecture`, `num_classes`, `label_names`, `model_args`, `pretrained_cfg`) and transformers' `timm_wrapper` at once,
`model.safetensors` has timm's names, and `preprocessor_config.json` repeats the evaluation preprocessing. So
`timm.create_model("local-dir:FOLDER")`, `AutoModel*.from_pretrained(FOLDER)` and smp's `tu-local-dir:FOLDER` read it
without this package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from timm.layers import ClassifierHead
from torch import Tensor, nn
from transformers import TimmWrapperConfig
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperPreTrainedModel

from ..errors import UserError
from ..text import series
from .checkpoint_resolver import check_architecture, find_weights
from .travelling import NETWORKS, brings_code, copy_files

# what timm keeps in pretrained_cfg about where weights came from, and recommendations that our fields replace
_NOT_SAVED = set(
    "url file state_dict hf_hub_id hf_hub_filename source architecture num_classes custom_load label_offset "
    "label_names label_descriptions test_input_size test_crop_pct test_pool_size".split()
)

# what it keeps there about the weights themselves
_OF_WEIGHTS = set("tag license description origin_url paper_name paper_ids notes".split())

STANDALONE = {
    "AutoModel": "standalone.StandaloneBackbone",
    "AutoModelForImageClassification": "standalone.StandaloneClassifier",
}

INTERFACE = ("num_classes", "num_features", "forward_features", "forward_head", "get_classifier")


class TimmCheckpointMixin(TimmWrapperPreTrainedModel):
    """Builds the timm network so that its own initialisation survives transformers, and saves in timm's layout."""

    def _build(self, config: TimmWrapperConfig, num_classes: int) -> nn.Module:
        """The timm network of `config`, on the CPU even while transformers constructs on the meta device.

        transformers >= 5 builds on meta inside `from_pretrained`, replaces every non-persistent buffer and every weight
        the file lacks by uninitialised memory, and asks `_init_weights` to fill them module by module. timm cannot do
        that (tables of swin, maxvit, ... would be overwritten after loading), so its own tensors are kept aside here.
        """
        check_architecture(config.architecture, config.model_args, config.name_or_path or "the configuration")
        args = {k: v for k, v in (config.model_args or {}).items() if k != "num_classes"}
        on_meta = torch.get_default_device().type == "meta"
        with torch.device("cpu"):
            net = timm.create_model(config.architecture, pretrained=False, num_classes=num_classes, **args)
        check_interface(net, f"the network {config.architecture}")
        if on_meta:
            self.__dict__["_fresh"] = {
                id(m): {n: t for n, t in [*m._parameters.items(), *m._buffers.items()] if t is not None}
                for m in net.modules()
            }
        return net

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Copies timm's own values into what the checkpoint did not bring; plain construction has nothing to do."""
        for name, source in self.__dict__.get("_fresh", {}).get(id(module), {}).items():
            target = getattr(module, name)
            if target is not source and not getattr(target, "_is_hf_initialized", False):
                target.copy_(source)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As in transformers, from safetensors only."""
        if not kwargs.setdefault("use_safetensors", True):
            raise UserError("use_safetensors=False would open a pickle, which can run code. Leave the argument out.")
        name = pretrained_model_name_or_path
        name = os.fspath(name) if isinstance(name, os.PathLike) else name  # transformers takes str() of a finished run
        if os.path.isdir(name):
            find_weights(name)
        loaded = super().from_pretrained(name, *args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).__dict__.pop("_fresh", None)
        return loaded

    def save_pretrained(self, save_directory, *args, state_dict: dict[str, Tensor] | None = None, **kwargs) -> None:
        """Writes config.json, model.safetensors, preprocessor_config.json, and the code of what timm lacks."""
        config, state = self.config, self.state_dict() if state_dict is None else state_dict
        # {} and not None, which timm cannot read; transformers cannot read num_classes among the arguments
        config.model_args = {k: v for k, v in (config.model_args or {}).items() if k != "num_classes"}
        config.pretrained_cfg = saved_cfg(getattr(config, "pretrained_cfg", None) or self.timm_model.pretrained_cfg)
        config.num_features = pooled_size(self.timm_model)
        # transformers writes the names it has read, and not those that id2label has by now
        config.label_names = [name for _, name in sorted((int(k), v) for k, v in config.id2label.items())]
        kwargs.setdefault("max_shard_size", "1000GB")  # timm and smp read one file
        if kwargs.get("is_main_process", True):  # before super(), which may push the folder
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            text = json.dumps(processor_config(config), indent=2) + "\n"
            Path(save_directory, "preprocessor_config.json").write_text(text, encoding="utf-8")
            if brings_code(config.architecture):
                copy_files(Path(save_directory), ("standalone.py", *NETWORKS))
        if brings_code(config.architecture):
            config.auto_map = STANDALONE
        super().save_pretrained(save_directory, *args, state_dict=timm_names(state), **kwargs)

    @property
    def preprocessing(self) -> dict:
        """What evaluation does to an image: input_size (C, H, W) in px, crop_pct, interpolation, mean, std."""
        cfg = getattr(self.config, "pretrained_cfg", None) or self.timm_model.pretrained_cfg
        return timm.data.resolve_data_config(pretrained_cfg=dict(cfg), verbose=False)


def check_interface(net: nn.Module, source: str) -> None:
    """Raises UserError for a network that lacks what all of timm have, as one that somebody else registered may."""
    if missing := [name for name in INTERFACE if not hasattr(net, name)]:
        raise UserError(
            f"{source[0].upper()}{source[1:]} has no {series(missing)}, as networks of timm have. Define what is "
            "missing: the README shows how under In Python."
        )


def classifier_modules(net: nn.Module) -> list[nn.Module]:
    """What turns pooled features into logits: a layer, or several of a distilled network; empty without classes.

    timm names them twice, by a method and in pretrained_cfg, and VOLO's auxiliary head only there. Some families
    (EfficientViT, SHViT) have a BatchNorm right before the layer, in a Sequential that counts as one layer.
    """
    if not net.num_classes:  # get_classifier of some families fails then
        return []
    found, listed = net.get_classifier(), getattr(net, "pretrained_cfg", {}).get("classifier") or ()
    heads = list(found) if isinstance(found, (tuple, list, nn.ModuleList)) else [found]
    modules = dict(net.named_modules())
    heads += [modules[name] for name in ([listed] if isinstance(listed, str) else listed) if name in modules]
    # Sequencer names its pooling and its last layer together
    heads = [head.fc if isinstance(head, ClassifierHead) else head for head in heads]
    names = {id(module): name for name, module in modules.items()}
    out = {}
    for head in heads:
        if isinstance(head, nn.Module) and not isinstance(head, nn.Identity):
            parent = net.get_submodule(names[id(head)].rpartition(".")[0])
            normed = all(m is head or isinstance(m, (nn.BatchNorm1d, nn.Dropout)) for m in parent.children())
            head = parent if isinstance(parent, nn.Sequential) and normed else head
            out[id(head)] = head
    inner = {id(m) for head in out.values() for m in head.modules() if m is not head}  # MetaFormer lists both
    return [head for key, head in out.items() if key not in inner]


def head_names(net: nn.Module) -> set[str]:
    """Names of the classifier's tensors in the network's state dict."""
    heads = {id(h) for h in classifier_modules(net)}
    prefixes = tuple(f"{name}." for name, module in net.named_modules() if id(module) in heads)
    return {k for k in net.state_dict() if k.startswith(prefixes)} if prefixes else set()


def head_shapes(net: nn.Module) -> dict[str, torch.Size]:
    """Of the classifier's tensors by their names."""
    state = net.state_dict()
    return {name: state[name].shape for name in head_names(net)}


def body_parameters(net: nn.Module) -> Iterator[nn.Parameter]:
    """All parameters except the classifier's."""
    head = {id(p) for h in classifier_modules(net) for p in h.parameters()}
    return (p for p in net.parameters() if id(p) not in head)


def groups_of(net: nn.Module, coarse: bool) -> dict[str, int] | None:
    """Name of a parameter -> number of its stage (coarse) or layer, from the stem to the head; None where timm does not
    say."""
    try:
        return timm.models.group_parameters(net, net.group_matcher(coarse=coarse), reverse=True)
    except (AttributeError, NotImplementedError):
        return None


def freeze_stages(model: nn.Module, count: int) -> None:
    """The stem and the first `count` stages, as timm groups them, take no gradient any more.

    Their BatchNorm still sees the batch. Raises UserError where the architecture names no stages, or `count` are all of
    them.
    """
    net = model.timm_model
    groups = groups_of(net, coarse=True)
    if groups is None:
        raise UserError(
            f"{model.config.architecture!r} names no stages (timm's group_matcher). Leave out --freeze, or take "
            "another architecture."
        )
    stem, *stages, _ = sorted(set(groups.values()))  # the last group is the head
    if count >= len(stages):
        raise UserError(
            f"freeze={count} leaves nothing of {model.config.architecture!r} to train: give less than its "
            f"{len(stages)} stages."
        )
    for name, group in groups.items():
        if group in (stem, *stages[:count]):
            net.get_parameter(name).requires_grad_(False)


def layer_rates(net: nn.Module, decay: float) -> dict[str, float]:
    """Name of a parameter -> decay^(n - i) for layer i of n, the stem first and the head, with a rate of 1, last.

    Raises:
        UserError: timm does not say in which order the layers of this network stand.
    """
    groups = groups_of(net, coarse=False)
    if groups is None:
        raise UserError(
            f"The layers of this {type(net).__name__} have no order that timm knows (group_matcher). Leave out "
            "--layer-decay, or take another encoder, such as a vision transformer."
        )
    last = max(groups.values())
    return {name: decay ** (last - group) for name, group in groups.items()}


def pooled_size(net: nn.Module) -> int:
    """D of the pooled features: the input of the classifier, after any layers between pooling and classes."""
    return int(getattr(net, "head_hidden_size", None) or net.num_features)


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state under timm's names, without the prefixes of transformers and torch.compile, to be saved."""
    return {name.replace("_orig_mod.", "").removeprefix("timm_model."): tensor for name, tensor in apart(state).items()}


def apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with copies of tensors that share memory with one before (CoaT's do), as safetensors demands."""
    taken: dict[int, list[tuple[int, int]]] = {}
    out = {}
    for name, tensor in state.items():
        spans = taken.setdefault(tensor.untyped_storage().data_ptr(), [])
        begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        out[name] = tensor.clone() if any(b < end and begin < e for b, e in spans) else tensor
        spans.append((begin, end))
    return out


def saved_cfg(cfg: dict, weights: bool = True) -> dict:
    """timm's pretrained_cfg as it is written: JSON values about preprocessing and layer names, no places of weights.

    Args:
        cfg: as timm has it.
        weights: whether the network has those it tells of; else their name, licence and origin are left out.
    """
    left_out = _NOT_SAVED if weights else _NOT_SAVED | _OF_WEIGHTS
    listed = {k: list(v) if isinstance(v, tuple) else v for k, v in cfg.items() if k not in left_out}
    return {
        k: v
        for k, v in listed.items()
        if isinstance(v, (int, float, str, list, bool)) or k in ("first_conv", "classifier")
    }


def processor_config(config: TimmWrapperConfig) -> dict:
    """preprocessor_config.json: AutoImageProcessor reads it on the Hub, and the same fields of config.json locally."""
    cfg = {**config.pretrained_cfg, "architecture": config.architecture}
    return {
        "image_processor_type": "TimmWrapperImageProcessor",
        "architecture": config.architecture,
        "pretrained_cfg": cfg,
    }

"""From a name to a segmenter, and from a segmenter to a folder that needs no package of ours."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import torch
from segmentation_models_pytorch import MODEL_ARCHITECTURES_MAPPING
from transformers import AutoConfig, AutoModelForSemanticSegmentation
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES as PIPELINE_MODELS

from ..errors import UserError, unknown
from ..evaluation.confusion import MASK_IGNORE
from ..files import read_json, write_json
from .backbone import LowLabelBackbone
from .loading import LoadReport, check_count, create_backbone
from .quiet import unsaid
from .segmenter import LowLabelForSemanticSegmentation, LowLabelSegmenterConfig
from .segmenter_parts import OWN
from .travelling import NETWORKS, brings_code, copy_files

AutoConfig.register(LowLabelSegmenterConfig.model_type, LowLabelSegmenterConfig, exist_ok=True)
AutoModelForSemanticSegmentation.register(LowLabelSegmenterConfig, LowLabelForSemanticSegmentation, exist_ok=True)
# pipeline("image-segmentation") reports an error for every model that is not in this table
PIPELINE_MODELS.setdefault(LowLabelSegmenterConfig.model_type, LowLabelForSemanticSegmentation.__name__)

# name -> (architecture, its arguments). smp's own default rates belong to output stride 8.
PRESETS: dict[str, tuple[str, dict]] = {
    "deeplabv2": ("deeplabv2", dict(output_stride=8, rates=[6, 12, 18, 24])),  # Chen et al. 2017
    # what the tables of CutMix-Seg, ClassMix and CLMB were made with: their code stops after the second rate
    "deeplabv2-two-rates": ("deeplabv2", dict(output_stride=8, rates=[6, 12])),
    # Chen et al. 2018, section 3.1
    "deeplabv3plus-os16": ("deeplabv3plus", dict(encoder_output_stride=16, decoder_atrous_rates=[6, 12, 18])),
    "deeplabv3plus-os8": ("deeplabv3plus", dict(encoder_output_stride=8, decoder_atrous_rates=[12, 24, 36])),
}
USUAL = "deeplabv3plus-os16"
# arguments of a backbone that say how it ends, which is the architecture's business
_NOT_INHERITED = ("output_stride", "global_pool", "drop_rate", "num_classes", "features_only", "out_indices")


def architectures() -> list[str]:
    return sorted({*MODEL_ARCHITECTURES_MAPPING, *PRESETS, *OWN})


def create_segmenter(
    encoder: str | LowLabelBackbone,
    num_labels: int,
    *,
    architecture: str | None = None,
    architecture_args: dict | None = None,
    encoder_args: dict | None = None,
    pretrained: bool = True,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
    size_divisor: int | None = None,
    revision: str | None = None,
) -> LowLabelForSemanticSegmentation:
    """A float32 segmenter of `num_labels` classes; `model.load_report` says what of the encoder was loaded.

    Args:
        encoder: whatever `create_backbone` takes, such as a folder of `pretrain`, or the backbone
            itself; `revision` of one on the Hub.
        num_labels: how many classes, 2 or more; class_names: what they are called.
        architecture: a preset above or an smp architecture; None: `linear` for an encoder whose maps are all of one
            size, as a plain vision transformer's, and for networks of transformers that timm lacks, else
            deeplabv3plus-os16. `architecture_args` go to it and `encoder_args` to timm.
        pretrained: take the encoder's weights; False: random ones.
        mean, std: of the channels (0..1), by which images are normalised; None: the encoder's own.
        image_size: px to which the longer side of an image is scaled; None: as it is.
        size_divisor: px, for encoders that want more than their stride, such as 256 for maxvit_nano_rw_256.

    Raises:
        UserError: there is no such encoder or architecture, or the names do not fit.
    """
    check_count(num_labels)
    names = [str(n) for n in class_names] if class_names is not None else [f"LABEL_{i}" for i in range(num_labels)]
    if num_labels < 2 or len(names) != num_labels or len(set(names)) != num_labels:
        raise UserError(
            f"A segmenter needs two classes or more, each with a name of its own. There are {num_labels} classes and "
            f"the names {', '.join(names[:8])}."
        )
    if num_labels > MASK_IGNORE:
        raise UserError(
            f"There are {num_labels} classes. A mask has values from 0 to {MASK_IGNORE - 1}: merge classes."
        )
    if architecture not in (None, *architectures()):
        raise unknown("architecture", architecture, architectures())
    backbone = encoder
    if not isinstance(backbone, LowLabelBackbone):
        with unsaid("hf_lowlabel.models.loading"):  # `load_encoder` tells it of the whole network
            backbone = create_backbone(
                encoder,
                pretrained=pretrained,
                mean=mean,
                std=std,
                revision=revision,
                model_args=encoder_args,
                trained_size=True,
            )
    if architecture is None:
        architecture = "linear" if _own(backbone) or _one_size(backbone) else USUAL
    kind, preset = PRESETS.get(architecture, (architecture, {}))
    _check_fits(kind, architecture, backbone)
    inherited = {k: v for k, v in (backbone.config.model_args or {}).items() if k not in _NOT_INHERITED}
    args = {**_any_size(backbone), **inherited, **preset, **(architecture_args or {})}
    seen = backbone.preprocessing
    config = LowLabelSegmenterConfig(
        encoder=backbone.config.architecture,
        architecture=kind,
        architecture_args=args,
        size_divisor=size_divisor,
        image_size=image_size,
        image_mean=list(seen["mean"]),
        image_std=list(seen["std"]),
        id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)},
    )
    model = _construct(config)
    _try(model)
    model.load_report = load_encoder(model, backbone)
    return model


def architecture_of(config: LowLabelSegmenterConfig) -> str:
    """The name under which `create_segmenter` knows an architecture, as settings have it."""
    kind, given = config.architecture, (config.architecture_args or {}).items()
    return next((name for name, (of, args) in PRESETS.items() if of == kind and args.items() <= given), kind)


def _own(backbone: LowLabelBackbone) -> bool:
    """Whether this is a network of transformers that timm lacks."""
    return "encoder_config" in (backbone.config.model_args or {})


def _one_size(backbone: LowLabelBackbone) -> bool:
    """Whether all maps of an encoder are of one size, as those of a plain vision transformer."""
    return len({info["reduction"] for info in getattr(backbone.timm_model, "feature_info", ())}) == 1


def _check_fits(kind: str, architecture: str, backbone: LowLabelBackbone) -> None:
    """Raises UserError where an architecture cannot stand on an encoder, and names one that can."""
    source, layers = backbone.load_report.source, (backbone.config.model_args or {}).get("depth")
    if kind in ("linear", "knn"):
        return
    if _own(backbone):
        raise UserError(
            f"{source} is a network of transformers that timm lacks, and goes with architecture 'linear' alone, not "
            f"{architecture!r}. Take that, or an encoder of timm."
        )
    if kind != "dpt":
        if _one_size(backbone):
            raise UserError(
                f"Plain vision transformers go with architecture 'linear' or 'dpt', not {architecture!r}: all maps of "
                f"{source} are of one size. Give --architecture linear."
            )
        return
    if backbone.patch & (backbone.patch - 1):
        raise UserError(
            "The architecture 'dpt' halves and doubles the grid of patches, and needs them of 8, 16 or 32 px; those of "
            f"{source} are {backbone.patch} px. Take architecture 'linear', or another encoder."
        )
    if layers:  # which smp has another argument of this name for
        raise UserError(
            f"The architecture 'dpt' takes encoders of as many layers as timm's own, and {source} has {layers}. Take "
            "architecture 'linear', or another encoder."
        )


def _any_size(backbone: LowLabelBackbone) -> dict:
    """The argument by which this network takes images of any size; most need none."""
    known = inspect.signature(type(backbone.timm_model).__init__).parameters
    if "strict_img_size" in known:  # Swin
        return {"strict_img_size": False}
    return {"dynamic_img_size": True} if "dynamic_img_size" in known else {}


def _construct(config: LowLabelSegmenterConfig) -> LowLabelForSemanticSegmentation:
    try:
        return LowLabelForSemanticSegmentation(config)
    except Exception as error:  # whatever smp and timm raise for networks and arguments that do not go together
        raise UserError(
            f"segmentation_models_pytorch cannot build a network of encoder {config.encoder!r}, architecture "
            f"{config.architecture!r} and {config.architecture_args} ({type(error).__name__}: {error}). Take an "
            "encoder with maps at several strides or another architecture, or give encoder_depth=N (and as many "
            f"decoder_channels) for an encoder with N maps."
        ) from error


@torch.no_grad()
def _try(model: LowLabelForSemanticSegmentation) -> None:
    """One small image that is not square, before any data is read: some encoders take no size but their own."""
    side = -(-128 // model.divisor) * model.divisor
    try:
        model.eval()(torch.zeros(1, model.config.num_channels, side, side + model.divisor))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"Encoder {model.config.encoder!r} does not take images of any size, here {side} x {side + model.divisor} "
            f"px ({error}). Give size_divisor=N with the side N px the encoder was made for (it helps networks of "
            "windows, such as maxvit), or take another encoder."
        ) from error
    model.train()


def load_encoder(model: LowLabelForSemanticSegmentation, backbone: LowLabelBackbone) -> LoadReport:
    """Copies a backbone's weights into the encoder, where timm's feature extraction may have renamed outer modules.

    A tensor of the encoder that the backbone has under none of its names, or in another shape, is an error.
    """
    encoder = getattr(model.network.encoder, "model", model.network.encoder)
    target, source = encoder.state_dict(), backbone.timm_model.state_dict()
    spellings = {alias: k for k in source for alias in (f"model.{k}", k.replace(".", "_", 1), k)}
    found = {k: spellings[k] for k in target if k in spellings and source[spellings[k]].shape == target[k].shape}
    missing = [k for k in target if k not in found]
    if missing:
        raise UserError(
            f"{backbone.load_report.source} has no weights for {', '.join(missing[:5])} of the encoder "
            f"{model.config.encoder}. Build the segmenter with the arguments of the backbone "
            f"({backbone.config.model_args})."
        )
    encoder.load_state_dict({k: source[name] for k, name in found.items()})
    loaded = backbone.load_report
    if not loaded.matched:
        return LoadReport(loaded.source, missing=list(model.state_dict()), head="fresh")
    used = set(found.values())
    report = LoadReport(
        loaded.source,
        loaded.revision,
        loaded.license,
        matched=sorted(used),
        head="fresh",
        missing=[k for k in model.state_dict() if not k.startswith("network.encoder.")],
        unexpected=[*loaded.unexpected, *sorted(set(source) - used)],
    )
    report.tell()
    return report


def bring_code(encoder: str | None, folder: str | Path | None) -> dict[str, str]:
    """Put this package's own code of a segmenter on an encoder beside its weights, where there is a folder.

    Returns:
        Name of an Auto class -> "module.Class", for config.json.
    """
    own = brings_code(encoder)
    if folder is not None:
        more = ("standalone_segmenter.py", *NETWORKS) if own else ()
        copy_files(Path(folder), ("configuration_segmenter.py", "segmenter.py", "segmenter_parts.py", *more))
    module = "standalone_segmenter" if own else "segmenter"
    return {
        "AutoConfig": "configuration_segmenter.LowLabelSegmenterConfig",
        "AutoModelForSemanticSegmentation": f"{module}.LowLabelForSemanticSegmentation",
    }


LowLabelForSemanticSegmentation.bring_code = staticmethod(bring_code)


def copy_code(folder: Path) -> None:
    """The same for a saved model, whose code may be of another version or none."""
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "auto_map": bring_code(config.get("encoder"), folder)})

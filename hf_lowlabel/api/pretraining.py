"""`pretrain`: every setting stands in the signature, so that an editor completes it.

The signature repeats the fields of `arguments` with their defaults; a test holds them equal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..hub.callback import CardCallback
from ..tasks import get_task
from ..training import pretrain as training
from ..training.callbacks import Callback
from ..training.preparing import Run
from ..training.same_buffers import SameBuffers
from .running import named, publish, run_folder, settled

if TYPE_CHECKING:
    from ..data import Split
    from ..input_types import Data, Model, Stream
    from ..methods import AnyMethod


@named
def pretrain(
    dataset: Data | Stream,
    model: Model = "resnet18",
    method: AnyMethod = None,
    *,
    task: str = "classification",
    method_args: Mapping[str, Any] | None = None,
    preset: str | None = None,
    dataset_config: str | None = None,
    dataset_split: str = "train",
    dataset_revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    value_range: Sequence[float] = (),
    pages: bool = False,
    no_label: Sequence[str] = (),
    skip_missing: bool = False,
    skip_conflicts: bool = False,
    plain_folders: bool = False,
    mask_column: str | None = None,
    classes: Sequence[str] = (),
    mask_format: str | None = None,
    mask_ignore: Sequence[int] = (),
    instances: bool = False,
    split: str | os.PathLike[str] | Split | None = None,
    unlabeled_dataset: Data | None = None,
    unlabeled_dataset_split: str = "train",
    max_bad: float = 0.01,
    memory_budget: float | None = None,
    streaming: bool | None = None,
    workers: int = 2,
    sharded: bool = False,
    model_revision: str | None = None,
    from_scratch: bool = False,
    init_from: str | os.PathLike[str] | None = None,
    output_stride: int | None = None,
    lora_rank: int | None = None,
    lora_alpha: float | None = None,
    channels_last: bool | None = None,
    compile: bool = False,
    image_size: int | None = None,
    stored_size: int | None = None,
    flip: bool | None = None,
    augment: str = "fixmatch-pytorch",
    min_scale: float | None = None,
    randaugment: bool = False,
    color: bool = True,
    max_steps: int | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    gradient_accumulation_steps: int = 1,
    optimizer: str | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    lr_scheduler_type: str | None = None,
    warmup_ratio: float | None = None,
    head_lr: float | None = None,
    max_grad_norm: float | None = None,
    precision: str = "fp32",
    l2_sp: float | None = None,
    seed: int = 0,
    output_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    save_steps: int | None = None,
    save_total_limit: int = 2,
    logging_steps: int = 50,
    eval_steps: int | None = None,
    max_bad_steps: int = 10,
    report_to: Sequence[str] = (),
    device: str | None = None,
    dry_run: bool = False,
    push_to_hub: str | None = None,
    hub_private: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Target pretraining: adapt a backbone to the images of a data set, without labels.

    A setting left at None takes the method's own default.

    Args:
        dataset: Images: Hub id, local folder, parquet, 'digits' or 'shapes'; in Python also a Dataset, DataFrame or
            list.
        model: Timm name, 'hf_hub:org/name', Hub id, folder (also of `pretrain`), timm module.
        method: Method name, or a class; None: byol (masks: pixpro), for finetune fixmatch (masks: unimatch).
        task: What is learned: classification (the class of an image), multilabel (all that apply),
            segmentation (of every pixel).
        method_args: Hyperparameters of the method, as KEY=VALUE ..., in Python a dict.
        preset: Named set of values from a paper, e.g. 'cifar' or 'pretrained'.
        dataset_config: Configuration of a Hub data set.
        dataset_split: Split that training images come from.
        dataset_revision: Revision (commit, tag or branch) of a Hub data set.
        image_column: Column that holds the image; None: detected.
        label_column: Column that holds the class; None: detected.
        value_range: Black and white values of images of more than 8 bits: 0 4095.
        pages: TIFF pages and GIF frames are images, held out by file; else only the first.
        no_label: Words in a table that mean no label; default: nan none null na n/a <na>.
        skip_missing: Leave out and list rows of a table, or masks, that belong to no image; pass over labels of
            some classes.
        skip_conflicts: Leave images unlabeled if table rows or copies disagree on the label.
        plain_folders: Folders only sort the images, by date for instance: none is a class.
        mask_column: Column that holds the mask; None: detected.
        classes: Mask classes in the order of their values, or a text file of them.
        mask_format: Encoding of masks; None: the layout's own, else class indices; index, binary, colors.
        mask_ignore: Mask values to ignore, besides 255.
        instances: Mask values are object numbers, all of one class.
        split: Split manifest (JSON; or a Split): what is labeled and held out; for masks also a list of ids (.txt).
        unlabeled_dataset: A second source of images without labels, joined to the first.
        unlabeled_dataset_split: Split of the second source.
        max_bad: Share of unreadable images that is skipped and listed; above it the run stops.
        memory_budget: Memory for decoded images; None: half of the device's free memory (GiB).
        streaming: Decode on demand; None: if images exceed memory_budget.
        workers: Processes that decode images when streaming (processes).
        sharded: Stream parquet, a Hub data set or an IterableDataset, for data larger than the disk; needs
            max_steps.
        model_revision: Revision of a model on the Hub.
        from_scratch: Start from random weights; a timm name is only the architecture.
        init_from: Take only the weights of this checkpoint or run folder.
        output_stride: Stride of the last feature map; None: the network's own, mostly 32; 8, 16, 32 (px).
        lora_rank: Train only low-rank adapters of this rank and the head (Hu et al. 2022; peft).
        lora_alpha: Scale adapters by lora_alpha / lora_rank; None: 1.
        channels_last: Layout of images in memory; None: the faster one on this device.
        compile: Torch.compile the network.
        image_size: Side of training views (with masks, crops); None: the model's (random weights or masks: the images'
            if smaller) (px).
        stored_size: Side of stored images (with masks the longer); None: image_size if it is below 64 px, the
            images are no larger or the encoder's preprocessing squashes them to squares, else 8/7 of it; with masks
            the image's own. Pretraining stores squares: the centre crop or the squashed image, for segmentation as
            many crops as cover a wide image (px).
        flip: Mirror images at random; None: as the data allows (never for digits).
        augment: RandAugment preset of the strong view; fixmatch-pytorch, usb.
        min_scale: Smallest share of the image area in a random resized crop.
        randaugment: RandAugment, which also rotates and shears, on random resized crops too (pretraining).
        color: Change colours; off (for classes told by colour): only brightness, contrast and sharpness.
        max_steps: Optimizer steps (steps).
        epochs: Passes over unlabeled (supervised: labeled) images; or give max_steps (epochs).
        batch_size: Images (finetune: labeled ones) per optimizer step, all processes (images).
        gradient_accumulation_steps: Micro-batches per optimizer step; BatchNorm and contrastive losses see one
            at a time.
        optimizer: Optimizer; sgd: Nesterov momentum 0.9, momentum: plain momentum; sgd, momentum, lars, adam,
            adamw.
        learning_rate: Learning rate; pretraining scales it by batch_size / 256; None: the paper's; when
            finetuning pretrained weights, times batch_size / the method's own if that is smaller, and a tenth with
            a fitted head.
        weight_decay: Weight decay; not for biases and normalisation.
        lr_scheduler_type: Learning-rate schedule; cosine, fixmatch, constant, linear, poly, steps, steps-late,
            steps-moam, steps-even, steps-rotnet, steps-tuning, steps-eman, steps-thirds, steps-quarters,
            adamatch.
        warmup_ratio: Share of the steps over which the learning rate rises from 0.
        head_lr: Learning rate of head and decoder, as a multiple of the body's; None: 1, new decoders 10.
        max_grad_norm: Largest norm of the gradient; None: not clipped.
        precision: Precision of the forward pass; fp32, bf16.
        l2_sp: Weight of |Phi - Phi_start|^2, added to the summed loss of a step (Xu et al. Eq. 3); 0 with
            --from-scratch.
        seed: Decides the labels drawn, initial weights, order of images and every view.
        output_dir: Run folder: model, card, metrics, log and checkpoints.
        resume: Resume from output_dir's newest whole checkpoint.
        save_steps: Steps between checkpoints; None: ten, at least 100 steps apart (steps).
        save_total_limit: Checkpoints kept; older ones are deleted once a newer one is on disk.
        logging_steps: Steps between log lines; 20 lines at least, or one a step (steps).
        eval_steps: Steps between evaluations; None: ten in a run (steps).
        max_bad_steps: Steps in a row with a NaN or infinite loss before training stops (steps).
        report_to: Tracker names that Accelerate knows: tensorboard, trackio, wandb ....
        device: 'cpu' to use no GPU; None: the best available.
        dry_run: 2 steps, evaluation and save; prints the configuration, memory and expected time.
        push_to_hub: Hub id (org/name) to push the finished model to.
        hub_private: Create the repository as private.
        callbacks: Objects whose methods are called at steps, evaluations, saves and the end (`Callback`).

    Returns:
        A Run; its folder is a saved backbone. Images that a `split` holds out are left out of training.

    Raises:
        UserError: Bad input, before anything is computed.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was saved; `resume=True` goes on.
        hf_lowlabel.training.stopping.Interrupted: SIGTERM or SIGHUP, likewise; a SystemExit.
    """
    config = settled("pretrain", locals())
    with run_folder(config, split) as folder:
        done = training.run(get_task(config.task), config, folder, [CardCallback(), SameBuffers(), *callbacks])
    publish(done)
    return done

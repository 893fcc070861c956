"""Names of settings in earlier versions of this library, in transformers, timm, Lightning and others.

A name of this table is no setting. It is refused with the name it has here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .errors import UserError, unknown

_WHOLE_STEP = "It counts the images of a whole optimizer step, over all devices."
_PASSES = "One epoch is a pass over the unlabeled images, with supervised over the labeled ones."
_NUMBER = "It is a number of steps."
_SHARE = "It is a share of the steps."
_SWITCH = "It is a switch: the newest whole checkpoint of output_dir is taken."
_PRECISIONS = "Its values are fp32 and bf16."

OURS: dict[str, tuple[str, str]] = {  # our name -> (their names, what is different)
    "learning_rate": ("lr base_lr peak_lr initial_lr init_lr blr", ""),
    "lr_scheduler_type": ("schedule lr_scheduler lr_schedule scheduler sched", ""),
    "warmup_ratio": ("warmup warmup_steps warmup_epochs num_warmup_steps", _SHARE),
    "max_grad_norm": ("clip_norm clip_grad grad_clip gradient_clip gradient_clip_val", ""),
    "gradient_accumulation_steps": ("accumulate accumulate_grad_batches grad_accum_steps", ""),
    "optimizer": ("optim opt", ""),
    "weight_decay": ("wd", ""),
    "max_steps": ("steps num_steps total_steps num_train_steps max_train_steps", ""),
    "epochs": ("num_train_epochs max_epochs num_epochs", _PASSES),
    "batch_size": ("per_device_train_batch_size per_gpu_train_batch_size train_batch_size bs", _WHOLE_STEP),
    "unlabeled_ratio": ("mu uratio", "It is the number of unlabeled images per labeled one."),
    "precision": ("bf16 fp16 amp mixed_precision", _PRECISIONS),
    "compile": ("torch_compile torchcompile", ""),
    "logging_steps": ("log_every log_interval log_every_n_steps", ""),
    "save_steps": ("save_every save_strategy", _NUMBER),
    "eval_steps": ("eval_every eval_strategy evaluation_strategy val_check_interval", _NUMBER),
    "save_total_limit": ("keep_checkpoints checkpoint_hist", ""),
    "metric_for_best_model": ("keep_best load_best_model_at_end", "Its values are validation, sel and last."),
    "early_stopping": ("patience early_stopping_patience", ""),
    "report_to": ("trackers logger loggers", ""),
    "resume": ("resume_from_checkpoint ckpt_path", _SWITCH),
    "init_from": ("checkpoint initial_checkpoint", ""),
    "from_scratch": ("pretrained", "It is the opposite: weights are pretrained unless from_scratch is set."),
    "device": ("use_cpu no_cuda", "Its value is then cpu."),
    "seed": ("data_seed random_seed", ""),
    "output_dir": ("output save_dir default_root_dir", ""),
    "push_to_hub": ("hub_model_id", "It takes the id of the repository."),
    "hub_private": ("hub_private_repo", ""),
    "model": ("model_name model_name_or_path backbone encoder", ""),
    "l2_sp": ("l2_start", ""),
    "drop_rate": ("drop dropout", ""),
    "lora_rank": ("lora_r", ""),
    "image_size": ("img_size imgsz input_size crop_size resolution", ""),
    "stored_size": ("pool_size", ""),
    "color": ("color_jitter", "It is a switch."),
    "method": ("algorithm", ""),
    "dataset": ("dataset_name data_dir train_dir", ""),
    "dataset_config": ("dataset_config_name", ""),
    "image_column": ("image_column_name", ""),
    "label_column": ("label_column_name", ""),
    "workers": ("num_workers dataloader_num_workers", ""),
    "num_labels": ("num_labeled labels_per_class", "It counts labels over all classes."),
    "classes": ("num_classes class_names", "It lists the classes of masks; those of images are found by themselves."),
    "validation": ("val_fraction num_validation", "It is a number of labeled images."),
}
FOREIGN = {theirs: (ours, remark) for ours, (names, remark) in OURS.items() for theirs in names.split()}


def no_such_setting(key: str, known: Collection[str], where: str, every: Mapping) -> UserError:
    """The error for a name that is no setting.

    Args:
        key: what was given; with leading dashes it is a flag, and the answer names flags.
        known: the settings of this verb; of its flags, those that are no setting too.
        where: what the name stood in.
        every: the settings of both verbs (arguments.known_settings).
    """
    plain, flag = key.lstrip("-").replace("-", "_"), key.startswith("-")

    def shown(name: str) -> str:
        return f"--{name.replace('_', '-')}" if flag else name

    if plain in known:
        return UserError(f"{key} is written {shown(plain)}.")
    ours, remark = FOREIGN.get(plain, (None, ""))
    if ours in known:
        return UserError(f"{key} is called {shown(ours)} here. {remark}".rstrip())
    if plain in every or ours in every:
        called = f", called {shown(ours)}" if ours else ""
        verb = every[plain if plain in every else ours].meta.get("verb", "pretrain and finetune")
        return UserError(f"{key} is a setting of {verb} only{called}. Leave it out.")
    return unknown(f"argument of {where}" if flag else f"key in the {where}", key, [shown(name) for name in known])

"""The methods of this library, one row each. Nothing heavy is imported here: `hf-lowlabel methods` answers at once."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Method:
    """`cls` is "module:Class" below hf_lowlabel; `defaults` and `presets` are settings of a run (see config.py)."""

    verb: str  # "pretrain" or "finetune"
    cls: str
    paper: str
    year: int
    arxiv: str
    needs: str  # what it asks of a batch, beside labeled images
    rule: str | None = None  # "module:Class" of the pseudo-label rule, for the FixMatch family
    frozen: bool = False  # reads features of the network as it is: no training, `cls` is a function
    prior: str = ""  # without a rule: whether it "may" or "must" be given prior pseudo-labels (--prior)
    tasks: tuple[str, ...] = ("classification",)
    defaults: dict = field(default_factory=dict)
    presets: dict[str, dict] = field(default_factory=dict)


# training settings that the FixMatch family shares: Sohn et al. table 4, Xu et al. section 4.1, Cai et al. section 5.2
_CIFAR = dict(learning_rate=0.03, batch_size=64, unlabeled_ratio=7, weight_decay=5e-4, max_steps=2**20)
_PRETRAINED = dict(_CIFAR, learning_rate=0.1)
_IMAGENET = dict(
    learning_rate=0.03,
    batch_size=64,
    unlabeled_ratio=5,
    weight_decay=1e-4,
    lr_scheduler_type="cosine",
    warmup_ratio=0.0125,
)
# S4L sections 4.1 and 4.3: 200 passes over 10 % of the labels, 1000 over 1 %; here in passes over all images
_STEPS = dict(batch_size=256, unlabeled_ratio=1, lr_scheduler_type="steps-late")
_S4L = {
    "imagenet-10": dict(_STEPS, learning_rate=0.1, weight_decay=1e-3, warmup_ratio=0.025, epochs=20),
    "imagenet-1": dict(_STEPS, learning_rate=0.01, weight_decay=1e-2, warmup_ratio=0.01, epochs=10),
}
_WEAK_STRONG = "weak and strong view"
_BOTH = ("classification", "segmentation")
# Xu et al. section 4.2, and French et al.'s script for DeepLabV3+: Adam at a constant rate, 40 x 1000 steps
_CUTMIX = dict(
    optimizer="adam",
    learning_rate=1e-5,
    weight_decay=0.0,
    lr_scheduler_type="constant",
    unlabeled_ratio=1,
    max_steps=40_000,
)

METHODS: dict[str, Method] = {
    "byol": Method(
        "pretrain",
        "pretraining.byol:BYOL",
        "Grill et al., Bootstrap your own latent",
        2020,
        "2006.07733",
        "two views",
        defaults=dict(batch_size=256, learning_rate=0.3, weight_decay=1e-6, optimizer="lars"),
        presets={
            "target": dict(batch_size=256, learning_rate=0.3, epochs=300, l2_sp=1e-2),  # Xu et al., section 4.1
            "imagenet": dict(
                batch_size=4096,
                learning_rate=0.2,
                weight_decay=1.5e-6,
                epochs=1000,
                warmup_ratio=0.01,
                l2_sp=0.0,
                method_args=dict(m0=0.996),
            ),  # Grill et al., section 3.3
        },
    ),
    "byol-eman": Method(
        "pretrain",
        "pretraining.byol_eman:BYOLEMAN",
        "Cai et al., Exponential moving average normalization",
        2021,
        "2101.08482",
        "two views",
        defaults=dict(batch_size=256, learning_rate=0.3, weight_decay=1e-6, optimizer="lars"),
        presets={"target": dict(batch_size=256, learning_rate=0.3, epochs=300, l2_sp=1e-2)},
    ),  # as BYOL in Xu et al.
    "moco": Method(
        "pretrain",
        "pretraining.moco:MoCo",
        "Chen et al., Improved baselines with momentum contrastive learning",
        2020,
        "2003.04297",
        "two views",
        defaults=dict(batch_size=256, learning_rate=0.03, weight_decay=1e-4, optimizer="sgd", min_scale=0.2),
        presets={
            "target": dict(
                learning_rate=0.003, epochs=300, l2_sp=1e-2
            ),  # a tenth of ImageNet's rate, as Xu et al. section 4.1
            "imagenet": dict(epochs=200, l2_sp=0.0),
            "cifar": dict(
                batch_size=512,
                learning_rate=0.03,
                weight_decay=5e-4,
                epochs=200,
                l2_sp=0.0,  # the authors' notebook
                method_args=dict(queue=4096, m=0.99, tau=0.1),
            ),
        },
    ),
    "simsiam": Method(
        "pretrain",
        "pretraining.simsiam:SimSiam",
        "Chen and He, Exploring simple Siamese representations",
        2021,
        "2011.10566",
        "two views",
        defaults=dict(batch_size=256, learning_rate=0.05, weight_decay=1e-4, optimizer="sgd", min_scale=0.2),
        presets={
            "target": dict(
                learning_rate=0.005, epochs=300, l2_sp=1e-2
            ),  # a tenth of ImageNet's rate, as Xu et al. section 4.1
            "imagenet": dict(batch_size=512, epochs=100, l2_sp=0.0),  # section 4
            "cifar": dict(batch_size=512, learning_rate=0.03, weight_decay=5e-4, epochs=800, l2_sp=0.0),  # appendix D
        },
    ),
    "simclr": Method(
        "pretrain",
        "pretraining.simclr:SimCLR",
        "Chen et al., A simple framework for contrastive learning",
        2020,
        "2002.05709",
        "two views",
        defaults=dict(batch_size=256, learning_rate=0.3, weight_decay=1e-6, optimizer="lars"),
        presets={
            "target": dict(
                learning_rate=0.03, epochs=300, l2_sp=1e-2
            ),  # a tenth of ImageNet's rate, as Xu et al. section 4.1
            "imagenet": dict(batch_size=4096, epochs=100, warmup_ratio=0.1, l2_sp=0.0, method_args=dict(tau=0.1)),
            "cifar": dict(
                batch_size=1024, learning_rate=1.0, epochs=1000, warmup_ratio=0.01, l2_sp=0.0
            ),  # appendix B.9
        },
    ),
    "vicreg": Method(
        "pretrain",
        "pretraining.vicreg:VICReg",
        "Bardes et al., VICReg",
        2022,
        "2105.04906",
        "two views",
        defaults=dict(batch_size=256, learning_rate=0.2, weight_decay=1e-6, optimizer="lars"),
        presets={
            "target": dict(
                learning_rate=0.02, epochs=300, l2_sp=1e-2
            ),  # a tenth of ImageNet's rate, as Xu et al. section 4.1
            "imagenet": dict(batch_size=2048, epochs=1000, warmup_ratio=0.01, l2_sp=0.0),  # section 4.2
        },
    ),
    "dino": Method(
        "pretrain",
        "pretraining.dino:DINO",
        "Caron et al., Emerging properties in self-supervised ViTs",
        2021,
        "2104.14294",
        "two views, and local crops where asked for",
        defaults=dict(
            batch_size=256, learning_rate=5e-4, weight_decay=0.04, optimizer="adamw", max_grad_norm=3.0, min_scale=0.14
        ),
        presets={
            "target": dict(
                learning_rate=5e-5, epochs=300, l2_sp=1e-2
            ),  # a tenth of ImageNet's rate, as Xu et al. section 4.1
            "imagenet": dict(
                batch_size=1024,
                epochs=300,
                warmup_ratio=0.0333,
                l2_sp=0.0,
                min_scale=0.4,
                method_args=dict(local_crops=8),
            ),  # section 3.1, and the authors' code
        },
    ),
    "rotnet": Method(
        "pretrain",
        "pretraining.rotnet:RotNet",
        "Gidaris et al., Predicting image rotations",
        2018,
        "1803.07728",
        "one view, turned four ways",
        defaults=dict(
            batch_size=128, learning_rate=0.2, weight_decay=5e-4, optimizer="sgd", lr_scheduler_type="steps"
        ),  # 0.1 at batch 128
        presets={"cifar": dict(epochs=200, l2_sp=0.0)},
    ),  # Rebuffi et al., section 4.6
    "exemplar": Method(
        "pretrain",
        "pretraining.exemplar:Exemplar",
        "Dosovitskiy et al., Exemplar CNNs; Zhai et al., S4L",
        2014,
        "1406.6909",
        "eight views",
        defaults=dict(batch_size=64, learning_rate=0.1, weight_decay=1e-4, optimizer="sgd"),
    ),  # Kolesnikov et al. 2019, 1901.09005
    "densecl": Method(
        "pretrain",
        "pretraining.densecl:DenseCL",
        "Wang et al., Dense contrastive learning",
        2021,
        "2011.09157",
        "two views, feature maps",
        tasks=("segmentation", "classification"),
        defaults=dict(batch_size=256, learning_rate=0.03, weight_decay=1e-4, optimizer="sgd", min_scale=0.2),
        presets={
            "target": dict(
                learning_rate=0.003, epochs=300, l2_sp=1e-2
            ),  # a tenth of ImageNet's rate, as Xu et al. section 4.1
            "imagenet": dict(epochs=200, l2_sp=0.0),
            "coco": dict(learning_rate=0.3, epochs=800, l2_sp=0.0),
        },
    ),
    "pixpro": Method(
        "pretrain",
        "pretraining.pixpro:PixPro",
        "Xie et al., Propagate yourself",
        2021,
        "2011.10043",
        "two views with their boxes, feature maps",
        tasks=("segmentation", "classification"),
        defaults=dict(batch_size=8, learning_rate=0.1, weight_decay=1e-5, optimizer="lars"),
        presets={
            "target": dict(batch_size=8, learning_rate=0.1, epochs=200, l2_sp=1e-2),  # Xu et al., section 4.1
            "imagenet": dict(
                batch_size=1024, learning_rate=1.0, epochs=100, warmup_ratio=0.05, l2_sp=0.0
            ),  # Xie et al., section 4.1
        },
    ),
    "pixpro-affine": Method(
        "pretrain",
        "pretraining.pixpro_affine:PixProAffine",
        "Xu et al., Revisiting pretraining, section 3.1",
        2022,
        "2205.03001",
        "two views with their boxes, feature maps",
        tasks=("segmentation", "classification"),
        defaults=dict(batch_size=8, learning_rate=0.1, weight_decay=1e-5, optimizer="lars"),
        presets={"target": dict(batch_size=8, learning_rate=0.1, epochs=200, l2_sp=1e-2)},
    ),  # Xu et al., section 4.1
    "supervised": Method(
        "finetune",
        "finetuning.supervised:Supervised",
        "labels only, the baseline of every table",
        2012,
        "",
        "nothing",
        tasks=_BOTH,
        defaults=dict(learning_rate=0.03, batch_size=64),  # presets: S4L section 4.1
        presets={
            "imagenet-10": dict(_STEPS, learning_rate=0.1, weight_decay=1e-3, warmup_ratio=0.025, max_steps=100_000),
            "imagenet-1": dict(_STEPS, learning_rate=0.01, weight_decay=1e-2, warmup_ratio=0.01, max_steps=50_000),
        },
    ),
    "probe": Method(
        "finetune",
        "finetuning.probes:probe_head",
        "logistic regression on frozen features",
        2019,
        "",
        "features of all images, no training",
        frozen=True,
        prior="may",
    ),
    "knn": Method(
        "finetune",
        "finetuning.probes:knn",
        "Wu et al., Unsupervised feature learning via non-parametric instance discrimination, section 3.4",
        2018,
        "1805.01978",
        "features of all images, no training",
        frozen=True,
    ),
    "label-spreading": Method(
        "finetune",
        "finetuning.probes:label_spreading",
        "Zhou et al., Learning with local and global consistency",
        2004,
        "",
        "features of all images, no training",
        frozen=True,
    ),
    "fixmatch": Method(
        "finetune",
        "finetuning.fixmatch:FixMatch",
        "Sohn et al., FixMatch",
        2020,
        "2001.07685",
        _WEAK_STRONG,
        rule="finetuning.weights:Fixed",
        tasks=_BOTH,
        defaults=dict(learning_rate=0.03, batch_size=64, unlabeled_ratio=7),
        presets={
            "cifar": _CIFAR,
            "pretrained": _PRETRAINED,
            # the authors' code for 10 %: rate 0.1 for each 256 labeled images, decay 3e-4 of the square without the half
            "imagenet": dict(
                learning_rate=0.4,
                batch_size=1024,
                unlabeled_ratio=5,
                weight_decay=6e-4,
                warmup_ratio=1 / 60,
                lr_scheduler_type="steps-even",
                method_args=dict(tau=0.7, lambda_u=10.0),
            ),
        },
    ),
    "pseudo-label": Method(
        "finetune",
        "finetuning.pseudo_label:PseudoLabel",
        "Lee, Pseudo-Label",
        2013,
        "",
        "weak view",
        presets={"cifar": _CIFAR, "pretrained": _PRETRAINED},
    ),
    "self-training": Method(
        "finetune",
        "finetuning.self_training:SelfTraining",
        "Zhai et al., S4L, section 4.2: Pseudo-Label in two steps",
        2019,
        "1905.03670",
        "weak view, pseudo-labels of all images (--prior)",
        prior="must",
        presets={
            "imagenet": dict(
                learning_rate=0.1,
                batch_size=32,
                unlabeled_ratio=8,
                weight_decay=1e-4,
                lr_scheduler_type="steps",
                epochs=100,
                method_args=dict(lambda_l=0.0),
            )
        },
    ),  # section 4.2
    "pi-model": Method(
        "finetune",
        "finetuning.pi_model:PiModel",
        "Laine and Aila, Temporal ensembling",
        2017,
        "1610.02242",
        "two weak views",
        presets={"cifar": _CIFAR, "pretrained": _PRETRAINED},
    ),
    "temporal-ensembling": Method(
        "finetune",
        "finetuning.temporal_ensembling:TemporalEnsembling",
        "Laine and Aila, Temporal ensembling",
        2017,
        "1610.02242",
        "weak view, index",
        presets={"cifar": _CIFAR, "pretrained": _PRETRAINED},
    ),
    "temporal-consistency": Method(
        "finetune",
        "finetuning.temporal_consistency:TemporalConsistency",
        "Rebuffi et al., Semi-supervised learning with scarce annotations",
        2020,
        "1905.08845",
        "weak view, index",
        presets={"cifar": _CIFAR, "pretrained": _PRETRAINED},
    ),
    "mean-teacher": Method(
        "finetune",
        "finetuning.mean_teacher:MeanTeacher",
        "Tarvainen and Valpola, Mean teachers",
        2017,
        "1703.01780",
        "two weak views",
        tasks=_BOTH,
        presets={"cifar": _CIFAR, "pretrained": _PRETRAINED},
    ),
    "vat": Method(
        "finetune",
        "finetuning.vat:VAT",
        "Miyato et al., Virtual adversarial training",
        2019,
        "1704.03976",
        "weak view",
        presets={
            "cifar": _CIFAR,
            "pretrained": _PRETRAINED,
            **{
                name: dict(
                    values,
                    learning_rate=0.3 * values["learning_rate"],
                    method_args=dict(eps=88.0, lambda_u=0.5, ramp=0.0),
                )
                for name, values in _S4L.items()
            },  # 10 %: the authors' config/vat.sh; 1 %: that rate in proportion
        },
    ),
    "vat-entmin": Method(
        "finetune",
        "finetuning.vat:VAT",
        "Miyato et al., VAT, with entropy minimisation",
        2019,
        "1704.03976",
        "weak view",
        defaults=dict(method_args=dict(entropy=0.06)),  # Oliver et al. 2018, table of hyperparameters
        presets={
            "cifar": dict(_CIFAR, method_args=dict(entropy=0.06)),
            "pretrained": dict(_PRETRAINED, method_args=dict(entropy=0.06)),
            **{
                name: dict(
                    values,
                    learning_rate=0.3 * values["learning_rate"],
                    method_args=dict(eps=88.0, lambda_u=0.5, ramp=0.0, entropy=1.0),
                )
                for name, values in _S4L.items()
            },  # as vat; config/vat_entmin.sh
        },
    ),
    "uda": Method(
        "finetune",
        "finetuning.uda:UDA",
        "Xie et al., Unsupervised data augmentation",
        2020,
        "1904.12848",
        _WEAK_STRONG,
        rule="finetuning.weights:Uda",
        presets={"cifar": dict(_CIFAR, max_steps=500_000), "pretrained": _PRETRAINED},
    ),
    "mixmatch": Method(
        "finetune",
        "finetuning.mixmatch:MixMatch",
        "Berthelot et al., MixMatch",
        2019,
        "1905.02249",
        "two weak views",
        defaults=dict(unlabeled_ratio=1, method_args=dict(ramp=0.4)),  # the paper's 1/64 is too short below 10^5 steps
        presets={
            "cifar": dict(
                learning_rate=0.002,
                optimizer="adamw",
                batch_size=64,
                unlabeled_ratio=1,
                weight_decay=0.02,
                lr_scheduler_type="constant",
                max_steps=2**20,
                method_args=dict(ramp=0.0156),
            )
        },
    ),
    "remixmatch": Method(
        "finetune",
        "finetuning.remixmatch:ReMixMatch",
        "Berthelot et al., ReMixMatch",
        2020,
        "1911.09785",
        "weak and two strong views",
        defaults=dict(unlabeled_ratio=1, method_args=dict(ramp=0.4)),  # as MixMatch
        presets={
            "cifar": dict(
                learning_rate=0.002,
                optimizer="adamw",
                batch_size=64,
                unlabeled_ratio=1,
                weight_decay=0.02,
                lr_scheduler_type="constant",
                max_steps=2**20,
                method_args=dict(ramp=0.0156),
            )
        },
    ),
    "fixmatch-eman": Method(
        "finetune",
        "finetuning.eman:FixMatchEMAN",
        "Cai et al., Exponential moving average normalization",
        2021,
        "2101.08482",
        _WEAK_STRONG,
        rule="finetuning.weights:Fixed",
        presets={
            "cifar": _CIFAR,
            "pretrained": _PRETRAINED,
            "imagenet": dict(_IMAGENET, method_args=dict(tau=0.7, lambda_u=10.0)),
        },
    ),
    "flexmatch": Method(
        "finetune",
        "finetuning.fixmatch:FixMatch",
        "Zhang et al., FlexMatch",
        2021,
        "2110.08263",
        "weak and strong view, index",
        rule="finetuning.weights:Flex",
        presets={"cifar": _CIFAR, "pretrained": _PRETRAINED, "imagenet": dict(_IMAGENET, method_args=dict(tau=0.7))},
    ),
    "freematch": Method(
        "finetune",
        "finetuning.fixmatch:FixMatch",
        "Wang et al., FreeMatch",
        2023,
        "2205.07246",
        _WEAK_STRONG,
        rule="finetuning.weights:Free",
        presets={"cifar": _CIFAR, "pretrained": _PRETRAINED, "imagenet": _IMAGENET},
    ),
    "softmatch": Method(
        "finetune",
        "finetuning.fixmatch:FixMatch",
        "Chen et al., SoftMatch",
        2023,
        "2301.10921",
        _WEAK_STRONG,
        rule="finetuning.weights:Soft",
        presets={"cifar": _CIFAR, "pretrained": _PRETRAINED, "imagenet": _IMAGENET},
    ),
    "adamatch": Method(
        "finetune",
        "finetuning.adamatch:AdaMatch",
        "Berthelot et al., AdaMatch",
        2022,
        "2106.04732",
        "weak and strong view of all images",
        rule="finetuning.weights:Ada",
        presets={"cifar": dict(_CIFAR, unlabeled_ratio=3, weight_decay=1e-3), "pretrained": _PRETRAINED},
    ),
    "simmatch": Method(
        "finetune",
        "finetuning.simmatch:SimMatch",
        "Zheng et al., SimMatch",
        2022,
        "2203.06915",
        _WEAK_STRONG,
        presets={
            "cifar": _CIFAR,
            "pretrained": _PRETRAINED,
            "imagenet": dict(_IMAGENET, method_args=dict(tau=0.7, lambda_u=10.0, lambda_in=5.0, teacher=1, bank_m=0.0)),
        },
    ),
    "comatch": Method(
        "finetune",
        "finetuning.comatch:CoMatch",
        "Li et al., CoMatch",
        2021,
        "2011.11183",
        "weak, strong and SimCLR view",
        presets={
            "cifar": dict(_CIFAR, max_steps=2**19),
            "pretrained": _PRETRAINED,
            "imagenet": dict(
                learning_rate=0.1,
                batch_size=160,
                unlabeled_ratio=4,
                weight_decay=1e-4,
                lr_scheduler_type="cosine",
                method_args=dict(
                    tau=0.6, edge=0.3, lambda_u=10.0, lambda_c=10.0, temperature=0.1, width=128, bank=30_000, memory=128
                ),
            ),
        },
    ),
    "self-tuning": Method(
        "finetune",
        "finetuning.self_tuning:SelfTuning",
        "Wang et al., Self-tuning",
        2021,
        "2102.12903",
        "two strong views of all images",
        defaults=dict(unlabeled_ratio=1),
        presets={
            "pretrained": dict(
                learning_rate=0.001,
                head_lr=10.0,
                batch_size=64,
                unlabeled_ratio=1,
                weight_decay=1e-4,
                lr_scheduler_type="steps-tuning",
                max_steps=27_000,
            )
        },
    ),  # the authors' src/main.py
    "s4l-rotation": Method(
        "finetune",
        "finetuning.s4l:S4LRotation",
        "Zhai et al., S4L",
        2019,
        "1905.03670",
        "weak view, turned four ways",
        defaults=dict(unlabeled_ratio=1),
        presets=_S4L,
    ),
    "s4l-exemplar": Method(
        "finetune",
        "finetuning.s4l:S4LExemplar",
        "Zhai et al., S4L",
        2019,
        "1905.03670",
        "eight views",
        defaults=dict(unlabeled_ratio=1),
        presets=_S4L,
    ),
    "moam": Method(
        "finetune",
        "finetuning.moam:MOAM",
        "Zhai et al., S4L, step 1 of the mix of all models",
        2019,
        "1905.03670",
        "weak view, turned four ways",
        defaults=dict(unlabeled_ratio=1),
        presets={
            "imagenet-10": dict(
                learning_rate=0.1,
                batch_size=128,
                unlabeled_ratio=1,
                weight_decay=2e-4,
                lr_scheduler_type="steps-moam",
                warmup_ratio=0.05,
                epochs=20,
            )
        },
    ),  # section 5
    "sscl": Method(
        "finetune",
        "finetuning.sscl:SsCL",
        "Zhang et al., Semi-supervised contrastive learning",
        2021,
        "2105.07387",
        _WEAK_STRONG,
        defaults=dict(unlabeled_ratio=4),
        presets={
            "cifar": dict(
                learning_rate=0.03, unlabeled_ratio=4, weight_decay=5e-4, lr_scheduler_type="cosine", epochs=200
            ),
            **{
                f"imagenet-{percent}": dict(
                    learning_rate=0.4,
                    batch_size=256,
                    unlabeled_ratio=4,
                    weight_decay=1e-4,
                    lr_scheduler_type="cosine",
                    epochs=800,
                    method_args=dict(weights, tau=0.6, gamma=10.0, queue=65_536, width=128),
                )  # table 8
                for percent, weights in (
                    (1, dict(lambda_ctr=10.0, lambda_u=5.0)),
                    (10, dict(lambda_ctr=5.0, lambda_u=10.0)),
                )
            },
        },
    ),
    "less": Method(
        "finetune",
        "finetuning.less:LESS",
        "Lucas et al., Barely-supervised learning",
        2022,
        "2112.12004",
        _WEAK_STRONG,
        rule="finetuning.weights:Fixed",
        presets={"cifar": _CIFAR, "pretrained": _PRETRAINED},
    ),
    "cutmix": Method(
        "finetune",
        "finetuning.cutmix:CutMixSeg",
        "French et al., Semi-supervised semantic segmentation needs strong, varied perturbations",
        2020,
        "1906.01916",
        "weak view of at least two images",
        tasks=("segmentation",),
        defaults=dict(_CUTMIX, batch_size=10, learning_rate=1e-4, max_steps=10_000),
        presets={
            "voc": dict(_CUTMIX, batch_size=20, image_size=321),
            "cityscapes": dict(_CUTMIX, batch_size=8, stored_size=1024, image_size=512, image_height=256),
            "isic": dict(_CUTMIX, batch_size=10, image_size=224),
        },
    ),  # French et al., section 4.3
    "classmix": Method(
        "finetune",
        "finetuning.classmix:ClassMix",
        "Olsson et al., ClassMix",
        2021,
        "2007.07936",
        "weak and strong view of at least two images",
        tasks=("segmentation",),
        # section 4 and the authors' configs/; there whole images of Cityscapes, neither scaled nor mirrored
        defaults=dict(
            optimizer="sgd",
            learning_rate=2.5e-4,
            head_lr=10.0,
            batch_size=10,
            unlabeled_ratio=1,
            weight_decay=5e-4,
            lr_scheduler_type="poly",
        ),
        presets={
            "voc": dict(batch_size=10, image_size=321, max_steps=40_000),
            "cityscapes": dict(
                batch_size=2,
                stored_size=1024,
                image_size=1024,
                image_height=512,
                scale=[1.0, 1.0],
                flip=False,
                max_steps=40_000,
            ),
        },
    ),
    "clmb": Method(
        "finetune",
        "finetuning.clmb:CLMB",
        "Alonso et al., Pixel-level contrastive learning from a class-wise memory bank",
        2021,
        "2104.13415",
        "weak and two strong views of at least two images",
        tasks=("segmentation",),
        defaults=dict(
            optimizer="sgd",
            learning_rate=2e-4,
            batch_size=10,
            unlabeled_ratio=1,
            weight_decay=5e-4,
            lr_scheduler_type="poly",
        ),
    ),  # configs/
    "unimatch": Method(
        "finetune",
        "finetuning.unimatch:UniMatch",
        "Yang et al., Revisiting weak-to-strong consistency",
        2023,
        "2208.09910",
        "weak and two strong views of at least two images",
        tasks=("segmentation",),
        defaults=dict(
            optimizer="sgd",
            learning_rate=1e-3,
            head_lr=10.0,
            batch_size=8,
            unlabeled_ratio=1,
            weight_decay=1e-4,
            lr_scheduler_type="poly",
            scale=[0.5, 2.0],
        ),
        presets={
            "voc": dict(image_size=321, epochs=80),  # section 4.1 and the authors' configs/
            "cityscapes": dict(
                learning_rate=5e-3, head_lr=1.0, image_size=801, window=801, epochs=240, method_args=dict(tau=0.0)
            ),
        },
    ),
    "unimatch-v2": Method(
        "finetune",
        "finetuning.unimatch_v2:UniMatchV2",
        "Yang et al., UniMatch V2",
        2024,
        "2410.10777",
        "weak and two strong views of at least two images",
        tasks=("segmentation",),
        defaults=dict(
            optimizer="adamw",
            learning_rate=5e-6,
            head_lr=40.0,
            batch_size=16,
            unlabeled_ratio=1,
            weight_decay=0.01,
            lr_scheduler_type="poly",
            scale=[0.5, 2.0],
        ),
    ),  # section 4.1; the decoder starts from nothing
}


FACTS = ("num_classes", "num_labeled", "pool", "rule", "priors")  # keywords that a run fills in, not the user


def hyperparameters(method: Method) -> dict[str, object]:
    """Keyword hyperparameters of a method and its rule with their defaults, read from the source, not imported."""
    out: dict[str, object] = {}
    for path in (method.cls, method.rule):
        if path:
            out |= _signature(*path.split(":"))
    return {k: v for k, v in out.items() if k not in FACTS}


def _signature(module: str, name: str) -> dict[str, object]:
    tree = ast.parse(Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py").read_text())
    init = next(n for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and n.name == name)
    if isinstance(init, ast.ClassDef):
        init = next((n for n in init.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if init is None:
        return {}
    given = [(a.arg, d) for a, d in zip(init.args.kwonlyargs, init.args.kw_defaults) if d is not None]
    return {name: ast.literal_eval(default) for name, default in given}

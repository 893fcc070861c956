"""Golden numbers: the losses of three steps on the tensors of fixed.py, as other code computes them.

How each was made stands beside it. The code of the authors was run outside of this repository, on the commit named;
logits and embeddings of the fixed networks came from numpy in float64. None: a step that is not comparable, for the
reason that its class gives. The values belong to `arguments` and to so many `images`, labeled and unlabeled ones."""

from dataclasses import dataclass, field

RUN = "that code, run in float64"
READ = "that code, read and redone in float64"
EQUATIONS = "the paper's equations in float64"
USB = "microsoft/Semi-supervised-learning@1ef4cbe semilearn/"
EMAN = "amazon-science/exponential-moving-average-normalization@f79248b "


@dataclass(frozen=True)
class Golden:
    """The numbers of one method: where they are from, how they were made, what they depend on."""

    reference: str
    how: str
    compared: str
    values: tuple[float | None, ...]
    arguments: dict = field(default_factory=dict)
    images: tuple[int, int] = (4, 7)
    tolerance: float = 1e-5  # relative


GOLDEN = {
    "fixmatch": Golden(
        "google-research/fixmatch@d4985a1 fixmatch.py",
        READ,
        "loss",
        (2.0375051, 2.66663226, 3.15275073),
        dict(tau=0.6, lambda_u=1.7),
    ),
    "flexmatch": Golden(
        USB + "algorithms/flexmatch/utils.py",
        RUN,
        "loss, table of last predictions",
        (2.59104928, 2.88221286, 3.33942988),
        dict(tau=0.45),
        images=(4, 23),
    ),
    "freematch": Golden(
        USB + "algorithms/freematch",
        RUN,
        "loss, thresholds, fairness",
        (2.49197671, 2.23681356, 3.17993983),
        dict(m=0.8, lambda_f=0.05),
    ),
    "softmatch": Golden(
        USB + "algorithms/softmatch/utils.py, hooks/dist_align.py (p~ from 1 / K)",
        RUN,
        "loss, mean and variance",
        (2.5699465, 2.69762896, 3.49813107),
        dict(m=0.2),
    ),
    "simmatch": Golden(
        "mingkai-zheng/simmatch@f10254b models/simmatch.py",
        RUN,
        "loss, bank; from the second step on",
        (None, 6.81164423, 6.73509567),
        dict(teacher=True, bank_m=0.0, memory=256, tau=0.6, lambda_u=1.5, lambda_in=2.0, width=7),
        images=(9, 7),
    ),
    "comatch-imagenet": Golden(
        "salesforce/CoMatch@08b4cce imagenet/Model.py; the loss of Train_CoMatch.py redone",
        RUN,
        "loss with both queues full; the third step",
        (None, None, 6.56533118),
        dict(
            teacher=True,
            passes=4,
            bank=8,
            memory=128,
            tau=0.6,
            edge=0.4,
            lambda_u=1.5,
            lambda_c=1.5,
            width=7,
            ema_decay=0.5,
        ),
        images=(4, 4),
    ),
    "self-tuning": Golden(
        "thuml/Self-Tuning@1010a19 models/method.py; KLDivLoss less its constant",
        RUN,
        "loss, groups",
        (27.1177343, 29.1598357, 30.6762589),
        dict(queue=3, width=7, lambda_u=1.5),
    ),
    "dino": Golden(
        "facebookresearch/dino@7c446df main_dino.py (DINOLoss)",
        RUN,
        "loss, center",
        (0.313465559, 0.691718855, 0.950866475),
        dict(center_m=0.9),
    ),
    "vicreg": Golden(
        "facebookresearch/vicreg@4e12602 main_vicreg.py",
        RUN,
        "loss",
        (19.5019347, 19.9770141, 21.4842499),
    ),
    "lejepa": Golden(
        "arXiv 2511.08544 algorithms 1 and 2, along the directions that are drawn here",
        EQUATIONS,
        "loss",
        (0.0515615602, 0.061875506, 0.0717163948),
    ),
    "pixpro": Golden(
        "zdaxie/PixPro@e390d6b contrast/models/PixPro.py (regression_loss, halved; featprop redone)",
        RUN,
        "loss",
        (-1.11691187, -1.1509606, -1.1125976),
    ),
    "byol": Golden(
        EMAN + "models/byol.py",
        RUN,
        "loss",
        (6.48971237, 6.72372988, 6.81700078),
    ),
    "byol-eman": Golden(
        EMAN + "models/byol.py",
        RUN,
        "loss",
        (6.79847414, 6.92609767, 7.0081693),
    ),
    "moco": Golden(
        "facebookresearch/moco@f31b348 moco/builder.py",
        RUN,
        "loss, queue that has no old key of the same images",
        (2.52278871, 3.40129265, 3.14923482),
    ),
    "simsiam": Golden(
        "facebookresearch/simsiam@a7bc177 main_simsiam.py",
        READ,
        "loss",
        (-0.0905586072, -0.0618512791, -0.0087636825),
    ),
    "adamatch": Golden(
        "google-research/adamatch@7a0b40c semi_supervised/adamatch.py",
        READ,
        "loss, both averages",
        (1.78690405, 2.02882249, 3.32339944),
        dict(m=0.8, memory=3, tau=0.9),
        images=(4, 23),
    ),
    "mixmatch": Golden(
        "google-research/mixmatch@1011a1d mixmatch.py, libml/layers.py",
        READ,
        "loss",
        (1.5095849, 2.44059633, 3.42598651),
        dict(ramp=0.3),
    ),
    "remixmatch": Golden(
        "google-research/remixmatch@f7061eb remixmatch_no_cta.py, libml/layers.py; K = 2, p_y of the paper",
        READ,
        "loss, p~",
        (2.8719018, 3.54658828, 6.19576735),
        dict(ramp=0.3, memory=3, lambda_1=0.6),
    ),
    "uda": Golden(
        "google-research/uda@960684e image/main.py; cross-entropy for the divergence",
        READ,
        "loss with linear annealing",
        (2.71024998, 2.53819108, 3.60813218),
        dict(tsa="linear", tau=0.6),
    ),
    "s4l-rotation": Golden(
        "google-research/s4l@8f1cf05 semi_supervised/rotation.py",
        READ,
        "loss",
        (4.18286446, 3.97322381, 4.41065252),
        dict(lambda_u=1.3),
    ),
    "s4l-exemplar": Golden(
        "google-research/s4l@8f1cf05 semi_supervised/exemplar.py",
        READ,
        "loss",
        (2.4406978, 2.890914, 3.89708936),
        dict(lambda_u=1.3, instances=3, width=7),
    ),
    "moam": Golden(
        "arXiv 1905.03670, section 5",
        EQUATIONS,
        "loss of step 1",
        (2.47084756, 2.38398665, 2.58750148),
        dict(lambda_u=1.3, w_sup=0.3, w_ent=0.2, eps=2.0),
        tolerance=1e-4,  # a finite difference in float32
    ),
    "fixmatch-eman": Golden(
        "arXiv 2101.08482, section 4.2",
        EQUATIONS,
        "loss",
        (1.81806216, 2.30196604, 2.66883032),
        dict(tau=0.6, lambda_u=1.7),
    ),
    "supervised": Golden(
        "cross-entropy with smoothed targets",
        EQUATIONS,
        "loss",
        (1.84336126, 1.97526769, 2.83673598),
        dict(label_smoothing=0.1),
    ),
    "pseudo-label": Golden(
        "Lee 2013, Eq. 15-16",
        EQUATIONS,
        "loss",
        (1.81806216, 2.5060957, 2.78374096),
        dict(tau=0.6, lambda_u=2.0, ramp=0.3),
    ),
    "pi-model": Golden(
        "arXiv 1610.02242, algorithm 1",
        EQUATIONS,
        "loss",
        (1.818383, 2.31107658, 2.94225288),
        dict(ramp=0.3),
    ),
    "temporal-ensembling": Golden(
        "arXiv 1610.02242, algorithm 2",
        EQUATIONS,
        "loss, ensemble",
        (1.81806216, 2.48049733, 3.16619833),
        dict(ramp=0.3),
    ),
    "mean-teacher": Golden(
        "arXiv 1703.01780, section 3",
        EQUATIONS,
        "loss",
        (1.83198518, 2.77247757, 4.62795965),
    ),
    "temporal-consistency": Golden(
        "arXiv 1905.08845, section 3.2",
        EQUATIONS,
        "loss, predictions",
        (1.81806216, 2.4900123, 3.03446794),
        dict(ramp=0.3, lambda_u=2.0),
    ),
    "vat-entmin": Golden(
        "arXiv 1704.03976, Eq. 5-14; arXiv 1905.03670, Eq. 3-5",
        EQUATIONS,
        "loss",
        (2.39009971, 2.81490578, 3.29861571),
        dict(eps=2.0, entropy=0.5, ramp=0.6),
        tolerance=1e-4,  # a finite difference in float32
    ),
    "comatch": Golden(
        "arXiv 2011.11183, Eq. 1-11",
        EQUATIONS,
        "loss, bank",
        (5.52202457, 5.8594174, 7.23763319),
        dict(bank=16, memory=2, tau=0.6, edge=0.4, lambda_u=1.5, lambda_c=2.0, width=7),
    ),
    "sscl": Golden(
        "arXiv 2105.07387, Eq. 1-5",
        EQUATIONS,
        "loss, prototypes, queues",
        (3.46176311, 6.81686501, 7.5901902),
        dict(width=7, memory=2, queue=10, positives=2, tau=0.6, lambda_u=1.5, lambda_ctr=2.0),
    ),
    "less": Golden(
        "arXiv 2112.12004; arXiv 2006.09882, Eq. 2-5",
        EQUATIONS,
        "loss",
        (8.30969706, 7.18608014, 10.6704254),
        dict(tau=0.6, clusters=9, lambda_u=1.5, lambda_c=2.0, width=7),
    ),
    "vat": Golden(
        "arXiv 1704.03976, Eq. 5-14",
        EQUATIONS,
        "loss",
        (1.81895199, 2.3087929, 2.72229648),
        dict(eps=2.0, ramp=0.6),
        tolerance=1e-4,  # a finite difference in float32
    ),
    "self-training": Golden(
        "arXiv 1905.08845, section 3.2",
        EQUATIONS,
        "loss, predictions",
        (3.43087471, 5.02958691, 4.74755306),
        dict(share=0.3, lambda_l=0.5, lambda_u=2.0),
    ),
    "cutmix": Golden(
        "arXiv 1906.01916, section 3",
        EQUATIONS,
        "loss",
        (2.40658537, 2.34751172, 2.43798119),
        dict(tau=0.3, lambda_u=0.8),
    ),
    "classmix": Golden(
        "arXiv 2007.07936, section 3",
        EQUATIONS,
        "loss",
        (3.82326, 3.60411375, 3.6749614),
        dict(tau=0.3, lambda_u=0.8),
    ),
    "clmb": Golden(
        "arXiv 2104.13415, section 3",
        EQUATIONS,
        "loss before the contrast",
        (2.39549601, 2.30893136, 2.42486608),
        dict(width=8, memory=6, fresh=3, samples=9, tau=0.3, ramp=0.9, lambda_e=0.3),
    ),
    "unimatch": Golden(
        "arXiv 2208.09910, sections 3.2 to 3.4",
        EQUATIONS,
        "loss",
        (1.99707758, 2.02078755, 2.01787858),
        dict(tau=0.3, box=0.9, lambda_s=0.6, lambda_fp=0.3),
    ),
    "unimatch-v2": Golden(
        "arXiv 2410.10777, sections 3.2 and 3.3",
        EQUATIONS,
        "loss",
        (2.48430357, 2.39238195, 2.38874116),
        dict(tau=0.3, box=0.9),
    ),
    "simclr": Golden(
        "arXiv 2002.05709, Eq. 1",
        EQUATIONS,
        "loss",
        (1.77319832, 1.80786876, 1.90597012),
    ),
    "rotnet": Golden(
        "arXiv 1803.07728, Eq. 1-3",
        EQUATIONS,
        "loss",
        (1.48383918, 1.44808843, 1.5061297),
    ),
    "exemplar": Golden(
        "arXiv 1703.07737, section 2",
        EQUATIONS,
        "loss",
        (0.834401198, 0.864858941, 0.859113597),
    ),
    "densecl": Golden(
        "arXiv 2011.09157, Eq. 1-4",
        EQUATIONS,
        "loss with both queues full, of other images",
        (5.63606061, 5.72574327, 5.43637663),
    ),
    "pixpro-affine": Golden(
        "arXiv 2205.03001, section 3.1",
        EQUATIONS,
        "loss",
        (-1.10513232, -1.14791472, -1.1353018),
    ),
}

# chosen of features(), sorted; hard pixels of two label maps, at least 5, 80 and 500 of them
CHOSEN = {
    "usl": ("TonyLianLong/UnsupervisedSelectiveLabeling@ceaab3c shared/utils/nn_utils_cifar.py", 4, [1, 13, 16, 36]),
    "typiclust": ("avihu111/TypiClust@4097a71 deep-al/pycls/al/typiclust.py; neighbours in numpy", 4, [8, 16, 36, 51]),
    "typiclust, four clusters": (
        "avihu111/TypiClust@4097a71 deep-al/pycls/al/typiclust.py; neighbours in numpy",
        7,
        [8, 13, 16, 32, 36, 39, 51],
    ),
}
HARD = ("LiheYoung/UniMatch@0324f3d util/ohem.py", {5: 2.67609837, 80: 2.67609837, 500: 2.40891722})

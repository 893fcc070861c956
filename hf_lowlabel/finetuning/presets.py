"""Settings of a run that several papers share, each with its source; the names are those of arguments.py."""

# the FixMatch family: Sohn et al. table 4, Xu et al. section 4.1
CIFAR = dict(learning_rate=0.03, batch_size=64, unlabeled_ratio=7, weight_decay=5e-4, max_steps=2**20)
PRETRAINED = dict(CIFAR, learning_rate=0.1)
# MixMatch's, which ReMixMatch is given too
MIXMATCH = dict(
    learning_rate=0.002,
    optimizer="adamw",
    batch_size=64,
    unlabeled_ratio=1,
    weight_decay=0.02,
    lr_scheduler_type="constant",
    max_steps=2**20,
    method_args=dict(ramp=0.0156),
)
# TorchSSL's flexmatch_imagenet_100000_0.yaml, by FlexMatch's authors
FLEXMATCH_IMAGENET = dict(learning_rate=0.03, batch_size=32, unlabeled_ratio=7, weight_decay=3e-4, max_steps=2_000_000)
# USB's configurations for 100 labels a class; there is none of FreeMatch or SoftMatch, which are USB's own methods
USB_IMAGENET = dict(learning_rate=0.03, batch_size=128, unlabeled_ratio=1, weight_decay=3e-4, max_steps=2**20)
# Cai et al. section 5.2 and the command in their README: plain momentum, 5 of 100 epochs of warm-up
EMAN_IMAGENET = dict(
    optimizer="momentum",
    learning_rate=0.03,
    batch_size=64,
    unlabeled_ratio=5,
    weight_decay=1e-4,
    lr_scheduler_type="steps-eman",
    warmup_ratio=0.05,
    epochs=100,
)
# S4L sections 4.1 and 4.3: 200 passes over 10 % of the labels, 1000 over 1 %; here in passes over all images
S4L_STEPS = dict(optimizer="momentum", batch_size=256, unlabeled_ratio=1, lr_scheduler_type="steps-late")
S4L = {
    "imagenet-10": dict(S4L_STEPS, learning_rate=0.1, weight_decay=1e-3, warmup_ratio=0.025, epochs=20),
    "imagenet-1": dict(S4L_STEPS, learning_rate=0.01, weight_decay=1e-2, warmup_ratio=0.01, epochs=10),
}
# Xu et al. section 4.2, and French et al.'s scripts for VOC and Cityscapes: Adam at a constant rate, 40 x 1000 steps,
# BatchNorm as it came
CUTMIX = dict(
    optimizer="adam",
    learning_rate=1e-5,
    weight_decay=0.0,
    lr_scheduler_type="constant",
    unlabeled_ratio=1,
    max_steps=40_000,
)

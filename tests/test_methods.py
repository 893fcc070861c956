"""The table of names, and what is built from a name or from a class of one's own."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_lowlabel.errors import UserError
from hf_lowlabel.finetuning.fixmatch import FixMatch, FlexMatch
from hf_lowlabel.finetuning.weights import Rule
from hf_lowlabel.methods import METHODS, check_hyperparameters, find, hyperparameters, methods_for, name_of, verb_of
from hf_lowlabel.objective import FinetuneObjective, PretrainObjective, build_objective
from hf_lowlabel.ranges import Share, settings_of
from hf_lowlabel.tasks import TASKS, get_task


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_features, self.body, self.head = 4, nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return SimpleNamespace(logits=self.head(self.body(x)))


class HalfRule(Rule):
    """Every pseudo-label counts as much."""

    def __init__(self, *, num_images: int, share: float = 0.5):
        super().__init__()
        self.num_images, self.share = num_images, share

    def forward(self, p, index, p_labeled, t):
        return p.argmax(1), torch.full_like(p.amax(1), self.share)


class MyMatch(FixMatch):
    """FixMatch with a rule of one's own."""

    rule_class = HalfRule


class Plain(FinetuneObjective):
    """Cross-entropy, and nothing about a paper."""

    def __init__(self, model, *, num_classes: int, weight: float = 1.0):
        super().__init__(model, ema_decay=0.0)
        self.num_classes, self.weight = num_classes, weight

    def forward(self, batch, t):
        loss = nn.functional.cross_entropy(self.model(batch["labeled"]["image"]).logits, batch["labeled"]["target"])
        return {"loss": self.weight * loss}


def test_names_and_verbs_need_no_torch():
    code = (
        "import sys; from hf_lowlabel.methods import METHODS, methods_for\n"
        "assert methods_for('pretrain') + methods_for('finetune') == list(METHODS) and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_finds_its_class_and_a_class_its_name():
    assert find("flexmatch") is FlexMatch and name_of(FlexMatch) == "flexmatch"
    assert verb_of("byol") == "pretrain" and verb_of("knn") == "finetune" and "knn" in methods_for("finetune")
    assert name_of(MyMatch) == "my-match" and name_of(type("MyFixMatchEMAN", (), {})) == "my-fix-match-eman"
    for ask in (find, verb_of):
        with pytest.raises(UserError, match="unknown method 'fixmach': did you mean 'fixmatch'"):
            ask("fixmach")


def test_every_method_of_the_table_is_a_class_of_its_own():
    assert len({find(name) for name in METHODS}) == len(METHODS)
    assert all(find(name).paper and find(name).year and find(name).needs for name in METHODS)


@pytest.mark.parametrize("name", [name for name in METHODS if find(name).arxiv])
def test_docstrings_name_the_paper_and_the_place_in_it(name):
    """A reader checks a line against the paper: its number, and an equation, algorithm or section, stand beside it."""
    cls = find(name)
    documents = [
        vars(sys.modules[cls.__module__])["__doc__"],
        vars(cls)["__doc__"],
        cls.rule_class and cls.rule_class.__doc__,
    ]
    text = " ".join(" ".join(filter(None, documents)).split())
    assert vars(cls)["__doc__"] and cls.arxiv in text
    assert re.search(r"(Eq\.|algorithms?|sections?) \d", text)


def test_hyperparameters_are_those_of_the_method_and_its_rule():
    assert hyperparameters(FlexMatch) == {"lambda_u": 1.0, "ema_decay": 0.999, "concat_weak": None, "tau": 0.95}
    assert hyperparameters(Plain) == {"weight": 1.0}


def test_a_class_of_ones_own_is_built_as_those_of_the_table():
    own = build_objective(Plain, Network(), {"weight": 2.0}, num_classes=3)
    assert (own.num_classes, own.weight, own.verb, own.paper, own.tasks) == (
        3,
        2.0,
        "finetune",
        "",
        ("classification",),
    )
    own = build_objective(MyMatch, Network(), {"share": 0.25, "lambda_u": 2.0}, num_images=7)
    assert isinstance(own.rule, HalfRule) and (own.rule.num_images, own.rule.share, own.lambda_u) == (7, 0.25, 2.0)
    with pytest.raises(UserError, match="unknown hyperparameter of my-match 'shar': did you mean 'share'"):
        build_objective(MyMatch, Network(), {"shar": 0.25}, num_images=7)
    with pytest.raises(UserError, match="unknown hyperparameter of my-match 'num_images'"):
        build_objective(MyMatch, Network(), {"num_images": 7})


class Positional(Plain):
    def __init__(self, model, num_classes, tau=0.5, weight: float = 2.0):
        super().__init__(model, num_classes=num_classes, weight=weight)
        self.tau = tau


class Passing(FinetuneObjective):
    def __init__(self, *a, tau: Share = 0.5, **k):
        super().__init__(*a, ema_buffers="own", **k)
        self.tau = tau


class PassingFixMatch(FixMatch):
    def __init__(self, model, beyond, **k):
        super().__init__(model, **k)
        self.beyond = beyond


def test_hyperparameters_of_ones_own_need_no_star_and_may_be_those_of_the_base():
    assert hyperparameters(Positional) == {"tau": 0.5, "weight": 2.0}
    own = build_objective(Positional, Network(), {"tau": 0.7}, num_classes=3)
    assert (own.num_classes, own.tau, own.weight) == (3, 0.7, 2.0)
    own = build_objective(Passing, Network(), {"tau": 0.7, "ema_decay": 0.5})
    assert (own.tau, own.ema_decay) == (0.7, 0.5) and build_objective(Passing, Network(), {}).ema_decay == 0.999
    with pytest.raises(UserError, match="tau of passing is 2. It must be a share from 0 to 1"):
        build_objective(Passing, Network(), {"tau": 2})
    with pytest.raises(UserError, match="^passing sets ema_buffers itself. Leave it out of method_args.$"):
        build_objective(Passing, Network(), {"ema_buffers": "copy"})
    own = build_objective(PassingFixMatch, Network(), {"beyond": 3, "lambda_u": 2.0, "tau": 0.5}, num_images=7)
    assert (own.beyond, own.lambda_u) == (3, 2.0)
    with pytest.raises(UserError, match="passing-fix-match needs beyond. Give it by method_args"):
        build_objective(PassingFixMatch, Network(), {}, num_images=7)


class WithoutNetwork(Plain):
    def __init__(self, model=None, tau=0.3, **more):
        super().__init__(model, **more)
        self.tau = len(tau) if tau == 1 else tau


class OfThree(Plain):
    def __init__(self, model, **more):
        super().__init__(model, num_classes=3, **more)


class Dropping(Plain):
    def __init__(self, model, num_classes, **more):
        FinetuneObjective.__init__(self, model, **more)


class PositionalRule(Rule):
    def __init__(self, tau=0.5):
        super().__init__()
        self.tau = tau


def test_what_a_class_of_ones_own_is_told_first_is_the_network():
    """Whatever its default; of a rule it is a hyperparameter."""
    assert hyperparameters(WithoutNetwork) == {"tau": 0.3, "weight": 1.0}
    ruled = type("Ruled", (FixMatch,), {"rule_class": PositionalRule})
    assert hyperparameters(ruled)["tau"] == 0.5 and build_objective(ruled, Network(), {"tau": 0.7}).rule.tau == 0.7


class Mixin:
    def __init__(self, tau=0.5, **more):
        super().__init__(**more)
        self.tau = tau


class Mixed(Mixin, Plain):
    def __init__(self, model, **more):
        super().__init__(model=model, **more)


def test_what_a_mixin_is_told_is_a_hyperparameter():
    assert hyperparameters(Mixed)["tau"] == 0.5 and build_objective(Mixed, Network(), {"tau": 0.7}).tau == 0.7


def test_a_fault_in_a_class_of_ones_own_says_the_line():
    at = r"cannot be built with \{.*\} \(test_methods.py, line \d+: "
    with pytest.raises(UserError, match=f"{at}object of type 'int' has no len.*or mend the class"):
        build_objective(WithoutNetwork, Network(), {"tau": 1})
    with pytest.raises(UserError, match=f"{at}.*multiple values .*'num_classes'"):
        build_objective(OfThree, Network(), {"weight": 2.0})
    with pytest.raises(TypeError, match="multiple values .*'num_classes'"):
        build_objective(OfThree, Network(), {})
    with pytest.raises(UserError, match="byol cannot be built with .*hidden.* Give other hyperparameters"):
        build_objective("byol", Network(), {"hidden": 10**14})  # beyond any memory
    with pytest.raises(UserError, match=f"^dropping {at}.*unexpected keyword argument 'weight'"):
        build_objective(Dropping, Network(), {"weight": 2.0})


def test_nothing_about_a_method_is_required_of_a_class():
    for base, verb in ((FinetuneObjective, "finetune"), (PretrainObjective, "pretrain")):
        assert (base.verb, base.paper, base.year, base.defaults, base.presets, base.prior) == (verb, "", 0, {}, {}, "")
        assert not base.frozen and base.rule_class is None


# ---- what hyperparameters may be -------------------------------------------------------------------------------------
CLASSES = sorted(
    {
        get_task(task).method(verb, m)
        for task in TASKS
        for verb in ("pretrain", "finetune")
        for m in get_task(task).methods(verb)
    },
    key=lambda cls: (cls.__module__, cls.__name__),
)
CHECKED_TOGETHER = {"blend"}  # lists, which the method itself checks
KEYS = [(cls, key) for cls in CLASSES for key in hyperparameters(cls) if key not in CHECKED_TOGETHER]


def kinds_of(cls):
    return settings_of(cls.rule_class) | settings_of(cls)


@pytest.mark.parametrize("cls, key", KEYS, ids=lambda v: v if isinstance(v, str) else name_of(v))
def test_every_hyperparameter_states_what_it_may_be(cls, key):
    """Numbers have a bound at least, texts their choices; what is beyond is refused in one sentence."""
    asked = kinds_of(cls)[key]
    assert asked.kind is bool or asked.bounds or asked.meta.get("choices")
    wrong = {"at least": -1, "above": 0, "at most": 1, "below": 0}
    beyond = [limit + wrong[word] for word, limit in asked.bounds.items()] + [float("nan"), float("inf")]
    beyond += [1.5 + asked.bounds["at least"]] if asked.kind is int else []
    for value in {bool: [2, "yes"], str: ["owm"]}.get(asked.kind, beyond):
        with pytest.raises(UserError, match=f"{key}") as told:
            check_hyperparameters(cls, {key: value})
        assert "\n" not in str(told.value)


def test_every_argument_of_a_strategy_states_what_it_may_be():
    from hf_lowlabel.selection.verbs import BY_MODEL, STRATEGIES

    for name, function in {**STRATEGIES, **BY_MODEL}.items():
        for asked in settings_of(function).values():
            assert asked.bounds, f"{asked.name} of {name}"


@pytest.mark.parametrize("cls", CLASSES, ids=name_of)
def test_what_a_paper_takes_is_within_the_bounds(cls):
    check_hyperparameters(cls, {k: v for k, v in hyperparameters(cls).items() if v is not None})
    for values in (cls.defaults, *cls.presets.values()):
        check_hyperparameters(cls, values.get("method_args", {}))


@pytest.mark.parametrize(
    "method, given, says",
    [
        ("fixmatch", "tau=2", "tau of fixmatch is 2. It must be a share from 0 to 1."),
        ("mean-teacher", "ema_decay=1.5", "ema_decay of mean-teacher is 1.5. It must be above 0 and below 1."),
        ("mixmatch", "temperature=0", "temperature of mixmatch is 0. It must be above 0."),
        ("knn", "k=2.5", "k of knn is 2.5. It must be a whole number."),
        ("probe", "l2=no", "l2 of probe is 'no'. It must be a number."),
        ("uda", "tsa=lin", "unknown tsa of uda 'lin'"),
        ("supervised", "strong=3", "strong of supervised is 3. It must be true or false."),
        ("propagation", "blend=1", "blend is 1"),
        ("moco", "tau=-1", "tau of moco is -1. It must be above 0."),
        ("propagation", "blend=[1,1,0,0]", "Give four shares of 0 or more that sum to 1"),
        ("simmatch", "teacher=true ema_decay=0", "ema_decay is 0, but the averaged network is the teacher."),
        ("comatch", "teacher=true ema_decay=0", "ema_decay is 0, but the averaged network makes the keys."),
    ],
)
def test_a_number_out_of_range_is_found_before_any_data_is_read(method, given, says, tmp_path, capsys):
    from hf_lowlabel.cli import main

    argv = [
        verb_of(method),
        "--dataset",
        str(tmp_path),
        "--method",
        method,
        "--method-args",
        *given.split(),
    ]
    assert main(argv) == 2
    assert says in capsys.readouterr().err


def test_a_method_of_ones_own_may_state_bounds():
    class Bounded(Plain):
        def __init__(self, model, *, num_classes: int, weight: float = 1.0, keep: Share = 0.5):
            super().__init__(model, num_classes=num_classes, weight=weight)

    check_hyperparameters(Bounded, {"weight": -3.0, "keep": 1})
    with pytest.raises(UserError, match="keep of bounded is 1.5. It must be a share from 0 to 1"):
        check_hyperparameters(Bounded, {"keep": 1.5})

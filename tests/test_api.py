"""The signatures of `pretrain` and `finetune` repeat the settings of `arguments`, so that an editor completes them."""

import inspect
import re

import pytest

import hf_lowlabel
from hf_lowlabel.arguments import Config, known_settings
from hf_lowlabel.fields import Setting
from hf_lowlabel.settings import resolve

FIRST = ["dataset", "model", "method"]  # those that may be given without a name
PATHS = {"output_dir", "prior", "compare_supervised", "init_from"}
OWN = {  # what may be an object
    "dataset": "Data",
    "unlabeled_dataset": "Data | None",
    "model": "Model",
    "split": "str | os.PathLike[str] | Split | None",
    "method_args": "Mapping[str, Any] | None",
    "architecture_args": "Mapping[str, Any] | None",
}


def annotation(s: Setting, verb: str) -> str:
    """The type that a signature says of a setting."""
    if s.name == "method":
        return "AnyMethod"
    if s.name == "dataset" and verb == "pretrain":
        return "Data | Stream"
    kind = (
        f"Sequence[{s.of.__name__}]"
        if s.kind is list
        else "str | os.PathLike[str]"
        if s.name in PATHS
        else s.kind.__name__
    )
    return OWN.get(s.name, kind + " | None" * s.optional)


def plain(text: str) -> str:
    """Text without its line breaks, in one case."""
    return re.sub(r"\s+", " ", text).lower()


@pytest.fixture(params=["pretrain", "finetune"])
def verb(request) -> str:
    return request.param


def test_a_signature_has_all_settings_and_callbacks(verb):
    parameters = inspect.signature(getattr(hf_lowlabel, verb)).parameters
    known = known_settings(verb)
    assert list(parameters) == [*FIRST, *(name for name in known if name not in FIRST), "callbacks"]
    for name, p in parameters.items():
        assert p.kind is (p.POSITIONAL_OR_KEYWORD if name in FIRST else p.KEYWORD_ONLY), name
    assert parameters["callbacks"].annotation == "Sequence[Callback]" and parameters["callbacks"].default == ()


def test_types_and_defaults_are_those_of_the_settings(verb):
    parameters = inspect.signature(getattr(hf_lowlabel, verb)).parameters
    for name, s in known_settings(verb).items():
        empty = {"[]": (), "{}": None}.get(repr(s.default), s.default)  # nothing that can be changed is a default
        default = inspect.Parameter.empty if name == "dataset" else empty
        assert parameters[name].default == default and type(parameters[name].default) is type(default), name
        assert parameters[name].annotation == annotation(s, verb), name


def test_what_a_signature_leaves_out_changes_nothing(verb, monkeypatch):
    """A call with data alone is the configuration of its defaults."""
    from hf_lowlabel.api import running

    parameters = inspect.signature(getattr(hf_lowlabel, verb)).parameters
    defaults = {name: p.default for name, p in parameters.items() if name != "dataset"}
    assert running.settled(verb, {"dataset": "digits", **defaults}) == resolve(
        Config.from_flat(verb, {"dataset": "digits"})
    )


def test_help_lists_every_setting(verb):
    said = plain(getattr(hf_lowlabel, verb).__doc__)
    for name, s in known_settings(verb).items():
        assert f" {name}: {plain(s.meta['help'])}" in said, name

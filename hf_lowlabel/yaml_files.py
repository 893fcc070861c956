"""Settings in YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import UserError
from .files import read_text

GIVEN_SPLIT = "split_given.json"  # in a run folder, of a Split that was given as such: its name there


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; keys may use '-' for '_'.

    Raises:
        UserError: there is no such file, or it is not UTF-8, not YAML, nested too deeply or not a mapping.
    """
    values = parsed(read_text(path, "Give the path of a YAML file in UTF-8."), path)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}. Write 'name: value' lines instead.")
    return {str(k).replace("-", "_"): v for k, v in values.items()}


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file; a Split that a run was given lies beside its own, wherever the run folder is now."""
    values = read_yaml(path)
    if values.get("split") == GIVEN_SPLIT and (beside := Path(path).with_name(GIVEN_SPLIT)).is_file():
        values["split"] = str(beside)
    return values


def parsed(text: str, called: str | Path) -> Any:
    """What a text in YAML says. called: its file, in a message.

    Raises:
        UserError: it is not YAML, or nested too deeply.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except RecursionError as error:
        raise UserError(f"{called} is nested too deeply to be read. Write one 'name: value' a line.") from error
    # a date such as 2024-13-45 is a ValueError
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{called} is not valid YAML: {' '.join(str(error).split())}") from error

"""From the command line and TOML to checked dataclasses: what all configurations share."""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from scdr.errors import InputError

_NONE = "none"


def given(arguments: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Those of some options, such as "config", that the command line gives; the rest is ignored."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        early.add_argument(f"--{name}", nargs="?")
    chosen, _ = early.parse_known_args([_dashes(argument) for argument in arguments])
    return {name: value for name, value in vars(chosen).items() if value is not None}


def read_toml(path: str) -> dict[str, Any]:
    """The values of a TOML file.

    Raises:
        InputError: it can't be read or is not TOML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # with or without a byte order mark
        values: dict[str, Any] = _replace(tomllib.loads(text), _NONE, None)
        return values
    except OSError as error:
        raise InputError(
            f"the config can't be read: {error.strerror}", where=path, fix="check the path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not valid TOML: {error}", where=path, fix="mend the file") from error


def to_toml(values: Mapping[str, Any]) -> str:
    """TOML that `read_toml` reads back; TOML has no null, so None is written as "none"."""
    return tomli_w.dumps(_replace(dict(values), None, _NONE))


def checked(kind: type, values: Mapping[str, Any], *, where: str | None) -> Any:
    """A dataclass from a mapping, every type and range checked.

    It goes by way of JSON, from which alone pydantic makes dataclasses without bending any type.

    Raises:
        InputError: an unknown key, or a value of another type or out of range.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise _one_line(error, where=where) from error


def absolute(path: str | None) -> str | None:
    """A path that means the same from any folder."""
    return None if path is None else str(Path(path).absolute())


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` in their places, section by section."""
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlay(merged[key], value) if nested else value
    return merged


def _replace(value: Any, old: object, new: object) -> Any:
    if isinstance(value, dict):
        return {k: _replace(v, old, new) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_replace(v, old, new) for v in value]
    return new if value == old else value


def _one_line(error: ValidationError, *, where: str | None) -> InputError:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return InputError(
            f"unknown key {key!r}", where=where, fix="remove it; --help lists what there is"
        )
    reason = problem["msg"][0].lower() + problem["msg"][1:]
    return InputError(f"{key} is {problem['input']!r}", where=where, fix=reason)


def _dashes(argument: str) -> str:
    """Take --some_option for --some-option, as tyro does."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if argument.startswith("--") else argument


def columns_of(option: str | None, *, where: str) -> dict[str, str | int] | None:
    """The columns that `user=NAME,item=NAME,...` names; numbers are positions from 0.

    Raises:
        InputError: it is not of that form.
    """
    if option is None:
        return None
    columns: dict[str, str | int] = {}
    for part in option.split(","):
        role, equals, name = part.partition("=")
        if role not in ("user", "item", "rating", "time") or not equals or not name:
            raise InputError(
                f"{part!r} does not name a column",
                where=where,
                fix="write it as user=NAME,item=NAME,rating=NAME,time=NAME, or with positions",
            )
        columns[role] = int(name) if name.isdecimal() else name
    return columns

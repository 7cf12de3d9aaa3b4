"""The configuration of a run: one definition for the command line, TOML and the report."""

from __future__ import annotations

import argparse
import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import tyro
from pydantic import Field, TypeAdapter, ValidationError

from scdr.errors import InputError
from scdr.hyperparameters import STRICT, Count, Positive, Seed
from scdr.methods import METHODS

DEFAULT_METHOD = "scdr"
NOT_KEPT = ("out", "overwrite")
"""Options that say where a run goes, not what it is; they are not written to config.toml."""
_NONE = "none"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What to run, on which data, where."""

    __pydantic_config__ = STRICT

    source: str | None = None
    """Ratings of the source domain: a file in any of the formats in docs/data.md. Without source,
    target and synthetic, the example pair (Epinions Cat03 to Cat05) is used."""
    target: str | None = None
    """Ratings of the target domain."""
    source_format: str = "auto"
    """Format of the source file, by name, where it is not recognised by itself."""
    target_format: str = "auto"
    """Format of the target file."""
    source_columns: str | None = None
    """Where the source's columns are not recognised: user=NAME,item=NAME,rating=NAME,time=NAME, or
    positions from 0 instead of names."""
    target_columns: str | None = None
    """The same for the target."""
    synthetic: Literal["movies-music", "books-movies", "books-music", "planted"] | None = None
    """Made data instead of files: the shape of a pair of Amazon domains, or the small planted pair
    of docs/protocol.md. The best possible error is known and reported."""
    scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the users, items and ratings of a synthetic pair."""
    signal: Positive = 0.8
    """Standard deviation of the taste term of synthetic ratings, in rating units."""
    data_seed: Seed = 0
    """Seed of synthetic data."""
    core: Count = 5
    """Ratings that every user and every item keeps at least, in both domains."""
    strict: bool = False
    """Refuse a file with any malformed row, rather than count and report a few."""
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the overlap users that are test users."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the other overlap users that are validation users."""
    seed: Seed = 0
    """Seed of the split, the initial weights and the order of the ratings."""
    method: str = DEFAULT_METHOD
    """Method to train; docs/methods.md lists them."""
    preset: Literal["default", "paper"] = "default"
    """Hyper-parameters to start from: what serves a user best, or the paper's."""
    clip: bool = True
    """Clip predictions to the range of the target's training ratings."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU where one is usable."""
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Cores to use; None takes all that this process may use. Results do not depend on it."""
    save_predictions: bool = False
    """Also write predictions.parquet: user, item, rating, prediction of each test rating."""
    out: str | None = None
    """Run folder to write; None makes a new one under runs/."""
    overwrite: bool = False
    """Replace the run folder where it exists."""


@dataclass(frozen=True)
class Settings:
    """A run's configuration and its method's hyper-parameters."""

    run: RunConfig
    hyper: Any

    def to_dict(self) -> dict[str, Any]:
        """As in config.toml and report.json: run options first, then a section each."""
        run = {k: v for k, v in dataclasses.asdict(self.run).items() if k not in NOT_KEPT}
        return run | dataclasses.asdict(self.hyper)

    def to_toml(self) -> str:
        """config.toml: complete, so that `--config` on it repeats the run."""
        return tomli_w.dumps(_replace(self.to_dict(), None, _NONE))


def read_settings(arguments: Sequence[str], *, program: str) -> Settings:
    """Settings from command-line arguments over a `--config` file over a preset.

    Raises:
        InputError: an unknown method, preset or key, or a value out of range.
        SystemExit: status 2 on an unknown option, 0 after `--help`.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--config", "--method", "--preset"):
        early.add_argument(name, nargs="?")
    chosen, _ = early.parse_known_args([_dashes(a) for a in arguments])
    config = {} if chosen.config is None else _read_toml(chosen.config)
    base = from_dict(
        config | {k: v for k in ("method", "preset") if (v := getattr(chosen, k)) is not None},
        where=chosen.config,
    )
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("run", Annotated[RunConfig, tyro.conf.arg(name="")]),
            ("hyper", Annotated[type(base.hyper), tyro.conf.arg(name="")]),
            (
                "config",
                Annotated[
                    str | None,
                    tyro.conf.arg(help="TOML file to start from, such as a run's config.toml."),
                ],
            ),
        ],
    )
    parsed = tyro.cli(
        command,
        prog=program,
        description=_DESCRIPTION,
        args=list(arguments),
        default=command(run=base.run, hyper=base.hyper, config=chosen.config),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    unchecked = Settings(run=parsed.run, hyper=parsed.hyper)
    checked = from_dict(unchecked.to_dict(), where="command line")
    places = {name: getattr(parsed.run, name) for name in NOT_KEPT}
    return dataclasses.replace(checked, run=dataclasses.replace(checked.run, **places))


def from_dict(values: Mapping[str, Any], *, where: str | None = None) -> Settings:
    """Settings from a mapping such as `Settings.to_dict` gives; what is missing is the preset's.

    Raises:
        InputError: an unknown method, preset or key, or a value out of range.
    """
    names = {f.name for f in dataclasses.fields(RunConfig)}
    method = values.get("method", DEFAULT_METHOD)
    if method not in tuple(METHODS):
        raise InputError(
            f"unknown method {method!r}", where=where, fix=f"choose one of {', '.join(METHODS)}"
        )
    presets = METHODS[method].presets
    preset = values.get("preset", "default")
    if preset not in tuple(presets):
        raise InputError(
            f"unknown preset {preset!r}", where=where, fix=f"choose one of {', '.join(presets)}"
        )
    start = dataclasses.asdict(presets[preset])
    sections = {k: v for k, v in values.items() if k not in names}
    run = _PRESET_RUN[preset] | {k: v for k, v in values.items() if k in names}
    try:
        return Settings(
            run=_check(RunConfig, run),
            hyper=_check(type(presets[preset]), _overlay(start, sections)),
        )
    except ValidationError as error:
        raise _one_line(error, where=where) from error


_PRESET_RUN: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {"validation_fraction": 0.0, "clip": False},
}

_DESCRIPTION = (
    "Train a cross-domain recommender on users of both domains and evaluate it on users that the "
    "target domain has never seen, beside the controls it must beat."
)


def _read_toml(path: str) -> dict[str, Any]:
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


def _check(kind: type, values: Mapping[str, Any]) -> Any:
    """By way of JSON, from which alone pydantic makes dataclasses without bending any type."""
    return TypeAdapter(kind).validate_json(json.dumps(values, default=str))


def _overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _overlay(merged[key], value) if nested else value
    return merged


def _replace(value: Any, old: object, new: object) -> Any:
    """TOML has no null: None is written as "none"."""
    if isinstance(value, dict):
        return {k: _replace(v, old, new) for k, v in value.items()}
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

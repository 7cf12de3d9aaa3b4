"""The configuration of a run: one definition for the command line, TOML and the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field

from scdr.errors import InputError
from scdr.folder import RUNS, find_started
from scdr.hyperparameters import STRICT, Count, NonNegative, Positive, Seed
from scdr.methods import METHODS
from scdr.options import absolute, checked, given, overlay, read_toml, to_toml

DEFAULT_METHOD = "scdr_b"
NOT_KEPT = ("out", "overwrite", "resume", "checkpoint_every")
"""Options that say where and how a run goes, not what it is; config.toml does not hold them."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the ratings of a pair of domains come from."""

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


@dataclass(frozen=True, kw_only=True)
class RunConfig(DataConfig):
    """What to run, on which data, where."""

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
    resume: bool = False
    """Go on with the interrupted run of --out, or without it with the last one under runs/; other
    options may be left out, or as they were. Where there is none, the run starts."""
    checkpoint_every: NonNegative = 10.0
    """Seconds between two checkpoints of a stage; 0 keeps every epoch."""


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
        return to_toml(self.to_dict())

    def repeatable(self, device: Literal["auto", "cpu", "cuda"]) -> Settings:
        """The same run whatever folder it is started in, on the device that `auto` came to."""
        run = dataclasses.replace(
            self.run,
            device=device,
            source=absolute(self.run.source),
            target=absolute(self.run.target),
        )
        return dataclasses.replace(self, run=run)


def read_settings(arguments: Sequence[str], *, program: str) -> Settings:
    """Settings from command-line arguments over a `--config` file over a preset.

    With `--resume`, options that are left out are those of the run to go on with, and the others
    must be.

    Raises:
        InputError: an unknown method, preset or key, a value out of range, one that differs from
            the interrupted run's, or no such run and no options to start one.
        SystemExit: status 2 on an unknown option, 0 after `--help`.
    """
    chosen = given(arguments, ("config", "method", "preset", "out", "backbone"))
    file, out, backbone = (chosen.pop(name, None) for name in ("config", "out", "backbone"))
    start: Mapping[str, Any] = {} if file is None else read_toml(file)
    started = None
    if "--resume" in arguments:
        started = find_started(out, overwrite="--overwrite" in arguments)
    if started is not None:
        start = started.settings if file is None else start
        named = {"method": DEFAULT_METHOD, "preset": "default"} | dict(start) | chosen
        _check_same({key: named[key] for key in ("method", "preset")}, started.settings)
    base = from_dict(dict(start) | chosen, where=file)
    method = METHODS[base.run.method]
    if backbone is not None and not method.has_backbone:
        raise InputError(
            f"{method.title} has factor models of its own, and no backbone to choose",
            where="--backbone",
            fix="leave it out, or choose another --method, such as scdr",
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
        default=command(run=base.run, hyper=base.hyper, config=file),
    )
    unchecked = Settings(run=parsed.run, hyper=parsed.hyper)
    places = {name: getattr(parsed.run, name) for name in NOT_KEPT}
    settings = from_dict(unchecked.to_dict() | places, where="command line")
    if started is not None:
        _check_same(settings.repeatable(settings.run.device).to_dict(), started.settings)
        overwrite = started.overwrite or settings.run.overwrite
        run = dataclasses.replace(settings.run, out=str(started.folder), overwrite=overwrite)
        return dataclasses.replace(settings, run=run)
    if settings.run.resume and settings.to_dict() == from_dict({}).to_dict():
        raise InputError(
            "there is no interrupted run to go on with",
            where=out or str(RUNS),
            fix="start it without --resume",
        )
    return settings


def from_dict(values: Mapping[str, Any], *, where: str | None = None) -> Settings:
    """Settings from a mapping such as `Settings.to_dict` gives; what is missing is the preset's.

    Raises:
        InputError: an unknown method, preset or key, or a value out of range.
    """
    names = {f.name for f in dataclasses.fields(RunConfig)}
    method = values.get("method", DEFAULT_METHOD)
    preset = values.get("preset", "default")
    start = hyperparameters(method, preset, where=where)
    sections = {k: v for k, v in values.items() if k not in names}
    run = PRESET_RUN[preset] | {k: v for k, v in values.items() if k in names}
    return Settings(
        run=checked(RunConfig, run, where=where),
        hyper=checked(type(start), overlay(dataclasses.asdict(start), sections), where=where),
    )


def _check_same(asked: Mapping[str, Any], resumed: Mapping[str, Any], section: str = "") -> None:
    """Refuse options other than the interrupted run's."""
    for key, value in asked.items():
        name, was = f"{section}{key}", resumed.get(key)
        if isinstance(value, Mapping) and isinstance(was, Mapping):
            _check_same(value, was, f"{name}.")
        elif value != was and name != "threads" and (name, value) != ("device", "auto"):
            raise InputError(
                f"{name} is {value!r}, but {was!r} in the run to resume",
                where="--resume",
                fix="leave the option out, or start again without --resume",
            )


def hyperparameters(method: str, preset: str, *, where: str | None = None) -> Any:
    """The hyper-parameters of a method's preset.

    Raises:
        InputError: there is no such method or preset.
    """
    if method not in tuple(METHODS):
        raise InputError(
            f"unknown method {method!r}", where=where, fix=f"choose one of {', '.join(METHODS)}"
        )
    presets = METHODS[method].presets
    if preset not in tuple(presets):
        raise InputError(
            f"unknown preset {preset!r}", where=where, fix=f"choose one of {', '.join(presets)}"
        )
    return presets[preset]


PRESET_RUN: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {"validation_fraction": 0.0, "clip": False},
}
"""What a preset changes beside hyper-parameters."""

_DESCRIPTION = (
    "Train a cross-domain recommender on users of both domains and evaluate it on users that the "
    "target domain has never seen, beside the controls it must beat."
)

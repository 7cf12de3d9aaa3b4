"""What a comparison runs: one definition for the command line, TOML and the folder it writes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field
from tyro.constructors import PrimitiveConstructorSpec

from scdr.config import PRESET_RUN, DataConfig, hyperparameters
from scdr.errors import InputError
from scdr.hyperparameters import STRICT, Count, Positive, PositiveCount, Seed
from scdr.methods import CONTROLS, METHODS
from scdr.models import Backbone
from scdr.options import absolute, checked, given, overlay, read_toml, to_toml

ALL = "all"
ABLATION = ("task_mapping", "scdr_minus", "scdr")
"""The methods of Table VII."""
MF: tuple[Backbone, ...] = ("mf",)
NOT_KEPT = ("jobs", "out", "cache", "cache_gb", "published", "dry_run", "clear_cache")
"""Options that do not change what is run; they are not written to config.toml."""
SYNTHETIC = "synthetic:"
PAIR_FORMS = "NAME=SOURCE:TARGET, or NAME=synthetic:movies-music@0.05 (the scale is optional)"


@dataclass(frozen=True, kw_only=True)
class PairConfig(DataConfig):
    """A named pair of domains."""

    name: str
    """What tables call the pair."""


def parse_pair(text: str) -> PairConfig:
    """The pair that `NAME=SOURCE:TARGET` or `NAME=synthetic:SHAPE@SCALE` stands for.

    Raises:
        InputError: it is not of that form.
    """
    name, equals, data = text.partition("=")
    if not (name and equals and data):
        raise InputError(f"{text!r} is not a pair", where="--pairs", fix=f"write {PAIR_FORMS}")
    values: dict[str, Any]
    if data.startswith(SYNTHETIC):
        shape, at, scale = data.removeprefix(SYNTHETIC).partition("@")
        values = {"synthetic": shape}
        if at:
            if not re.fullmatch(r"[0-9.]+(e-?[0-9]+)?", scale):
                raise InputError(
                    f"{scale!r} is not a scale", where=f"--pairs {name}", fix=f"write {PAIR_FORMS}"
                )
            values["scale"] = float(scale)
    else:
        files = data.split(":")
        if len(files) != 2 or not all(files):
            raise InputError(
                f"{data!r} does not name two files with one colon between them",
                where=f"--pairs {name}",
                fix=f"write {PAIR_FORMS}; paths with a colon go into a TOML file",
            )
        values = {"source": files[0], "target": files[1]}
    pair: PairConfig = checked(PairConfig, values | {"name": name}, where=f"--pairs {name}")
    return pair


PairOption = Annotated[
    PairConfig,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME=SOURCE:TARGET",
        instance_from_str=lambda words: parse_pair(words[0]),
        is_instance=lambda value: isinstance(value, PairConfig),
        str_from_instance=lambda pair: [pair.name],
    ),
]


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What to compare, on which data, where."""

    __pydantic_config__ = STRICT

    pairs: tuple[PairOption, ...] = ()
    """Pairs of domains: NAME=SOURCE:TARGET with files in any of the formats in docs/data.md, or
    NAME=synthetic:SHAPE@SCALE with a shape of --synthetic of scdr.train. More options of a pair
    go into a TOML file. Without any, the example pair (Epinions Cat03 to Cat05) is used."""
    betas: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.2, 0.5, 0.8)
    """Shares of the overlap users that are test users."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Seeds; each makes a split, initial weights and an order of the ratings of its own."""
    methods: tuple[str, ...] = (ALL,)
    """Methods by name, all, or ablation (Table VII); the controls are always added."""
    backbone: tuple[Backbone, ...] = MF
    """What factors come from, for all methods that pretrain them: with several, each method runs
    with each of them, and Table VI is printed."""
    preset: Literal["default", "paper"] = "default"
    """Hyper-parameters: what serves a user best, or the paper's."""
    proposed: str | None = None
    """The method whose improvement over the best baseline is tested and printed; None takes
    scdr_b, or scdr in the paper preset or where scdr_b is not compared."""
    tune: Count = 0
    """Trials of a hyper-parameter search for each run, on its validation users; 0 for none. The
    same number for every method."""
    core: Count = 5
    """Ratings that every user and every item of a file keeps at least, in both domains."""
    strict: bool = False
    """Refuse a file with any malformed row, rather than count and report a few."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the other overlap users that are validation users."""
    clip: bool = True
    """Clip predictions to the range of the target's training ratings; the controls always are."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU where one is usable."""
    hyper: Annotated[dict[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Hyper-parameters over the preset's, by method and section; in a TOML file only."""
    jobs: PositiveCount | None = None
    """Runs at once, each in a process of its own; None takes all cores. Results do not depend
    on it."""
    out: str | None = None
    """Folder to write, and to go on from where it holds finished runs; None makes a new one
    under runs/."""
    cache: str | None = None
    """Folder of pretrained factors; None is SCDR_CACHE, or the user's cache folder."""
    cache_gb: Positive = 4.0
    """Size that the cache may have, in GB; what was used least recently goes first."""
    published: bool = False
    """Also print the numbers that the paper reports, in tables of their own."""
    dry_run: bool = False
    """List the runs and which of them are finished, and estimate time and memory of the others
    from a few epochs of each method; run nothing else."""
    clear_cache: bool = False
    """Remove all pretrained factors from the cache; run nothing."""

    def with_absolute_paths(self) -> CompareConfig:
        """The same, to be run from any folder."""
        return dataclasses.replace(
            self,
            pairs=tuple(
                dataclasses.replace(
                    pair, source=absolute(pair.source), target=absolute(pair.target)
                )
                for pair in self.pairs
            ),
        )

    def to_toml(self) -> str:
        """config.toml: complete, so that `--config` on it repeats the comparison."""
        values = dataclasses.asdict(self)
        return to_toml({name: values[name] for name in values if name not in NOT_KEPT})


def read_config(arguments: Sequence[str], *, program: str) -> CompareConfig:
    """A configuration from command-line arguments over a `--config` file over a preset.

    Raises:
        InputError: an unknown method, preset or key, or a value out of range.
        SystemExit: status 2 on an unknown option, 0 after `--help`.
    """
    early = given(arguments, ("config", "preset"))
    file = early.pop("config", None)
    base = from_dict(({} if file is None else read_toml(file)) | early, where=file)
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("compare", Annotated[CompareConfig, tyro.conf.arg(name="")]),
            (
                "config",
                Annotated[
                    str | None,
                    tyro.conf.arg(help="TOML file to start from, such as a folder's config.toml."),
                ],
            ),
        ],
    )
    parsed = tyro.cli(
        command,
        prog=program,
        description=_DESCRIPTION,
        args=list(arguments),
        default=command(compare=base, config=file),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return from_dict(dataclasses.asdict(parsed.compare), where="command line")


def from_dict(values: Mapping[str, Any], *, where: str | None = None) -> CompareConfig:
    """A configuration from a mapping such as TOML gives; what is missing is the preset's.

    Pairs may be tables with the keys of `PairConfig`, or strings as on the command line.

    Raises:
        InputError: an unknown method, preset or key, a value out of range, or a name given twice.
    """
    preset = values.get("preset", "default")
    if preset not in tuple(PRESET_RUN):
        raise InputError(
            f"unknown preset {preset!r}", where=where, fix=f"choose one of {', '.join(PRESET_RUN)}"
        )
    values = PRESET_RUN[preset] | dict(values)
    if isinstance(pairs := values.get("pairs"), list | tuple):
        values["pairs"] = [
            dataclasses.asdict(parse_pair(pair)) if isinstance(pair, str) else pair
            for pair in pairs
        ]
    config: CompareConfig = checked(CompareConfig, values, where=where)
    if not config.pairs:
        config = dataclasses.replace(config, pairs=(PairConfig(name="Epinions Cat03-Cat05"),))
    _check_names(config, where)
    if config.tune and not config.validation_fraction:
        raise InputError(
            "a search of hyper-parameters needs validation users",
            where="--tune",
            fix="add --validation-fraction 0.1",
        )
    return config


def _check_names(config: CompareConfig, where: str | None) -> None:
    groups = _groups()
    for names, known in (
        (config.methods, (*groups, *METHODS, *CONTROLS)),
        ((*config.hyper, proposed_method(config)), tuple(METHODS)),
    ):
        for name in names:
            if name not in known:
                raise InputError(
                    f"unknown method {name!r}", where=where, fix=f"choose of {', '.join(known)}"
                )
    for option, given_values in (
        ("pairs", [pair.name for pair in config.pairs]),
        ("betas", config.betas),
        ("seeds", config.seeds),
        ("backbone", config.backbone),
    ):
        if not given_values or len(set(given_values)) < len(given_values):
            raise InputError(
                f"{option} is empty or holds a value twice", where=where, fix="give each once"
            )
    chosen = [METHODS[name] for name in method_names(config) if name in METHODS]
    if config.backbone != MF and not any(method.has_backbone for method in chosen):
        raise InputError(
            f"no backbone can be chosen for {', '.join(method.title for method in chosen)}",
            where="--backbone",
            fix="leave --backbone out, or add a method that pretrains by matrix factorisation",
        )
    for name in config.hyper:
        for backbone in backbones_of(config, name):
            hyper_of(config, name, backbone)


def method_names(config: CompareConfig) -> tuple[str, ...]:
    """The methods to compare, groups resolved, then the controls; in the order of the tables."""
    groups = _groups()
    chosen = {name for asked in config.methods for name in groups.get(asked, (asked,))}
    return (*(name for name in METHODS if name in chosen), *CONTROLS)


def proposed_method(config: CompareConfig) -> str:
    """The method whose improvement is tested."""
    if config.proposed is not None:
        return config.proposed
    ours = config.preset == "default" and "scdr_b" in method_names(config)
    return "scdr_b" if ours else "scdr"


def _groups() -> dict[str, tuple[str, ...]]:
    """Names that stand for several methods."""
    return {ALL: tuple(METHODS), "ablation": ABLATION}


def backbones_of(config: CompareConfig, method: str) -> tuple[Backbone | None, ...]:
    """The backbones a method or control runs with; None where it has none to choose."""
    has_backbone = method in METHODS and METHODS[method].has_backbone
    return config.backbone if has_backbone else (None,)


def hyper_of(config: CompareConfig, method: str, backbone: Backbone | None) -> Any:
    """The hyper-parameters of a method or control: the preset's, with `config.hyper` over them.

    Raises:
        InputError: an unknown key, a value of another type or out of range, or a backbone among
            them.
    """
    if method in CONTROLS:
        return CONTROLS[method].presets[config.preset]
    start = hyperparameters(method, config.preset)
    values = overlay(dataclasses.asdict(start), config.hyper.get(method, {}))
    if backbone is not None:
        if values["pretrain"]["backbone"] != start.pretrain.backbone:
            raise InputError(
                "the backbone is no hyper-parameter of one method here",
                where=f"hyper.{method}.pretrain.backbone",
                fix="give it as backbone, for all methods",
            )
        values["pretrain"]["backbone"] = backbone
    return checked(type(start), values, where=f"hyper.{method}")


_DESCRIPTION = (
    "Compare methods of cross-domain recommendation over pairs of domains, shares of cold-start "
    "users and seeds, beside the controls they must beat, and print the paper's tables."
)

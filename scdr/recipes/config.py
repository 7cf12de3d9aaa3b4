"""What to analyse: the options of the command."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from scdr.errors import InputError
from scdr.experiments import config as compare
from scdr.experiments.config import CompareConfig, PairOption
from scdr.hyperparameters import STRICT, Positive, PositiveCount, Seed
from scdr.options import checked
from scdr.recipes.catalogue import ALL, RECIPES

PAPER_BETA = 0.8
"""The share that the paper's analysis is at."""


@dataclass(frozen=True, kw_only=True)
class AnalyzeConfig:
    """What to analyse, on which data, where."""

    __pydantic_config__ = STRICT

    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Run folders of scdr.train to analyse as they are, several seeds of a method as one; or one
    folder of scdr.compare, for a report of it."""
    recipe: tuple[str, ...] = ()
    """table5, table7, fig2, fig4, fig5, fig6, fig7 and fig8 as in the paper; attacks, flatness and
    ratings beyond it; or all. Without run folders what a recipe needs is trained."""
    pairs: tuple[PairOption, ...] = ()
    """Pairs of domains, as in scdr.compare: NAME=SOURCE:TARGET, or NAME=synthetic:SHAPE@SCALE.
    Without any, the example pair (Epinions Cat03 to Cat05)."""
    betas: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """Shares of the overlap users that are test users; without any the paper's: 0.8, and in table7
    0.2 and 0.5 too."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Seeds; each makes a split, initial weights and an order of the ratings of its own."""
    preset: Literal["default", "paper"] = "paper"
    """Hyper-parameters to train with: the paper's, or what serves a user best."""
    sweep_steps: tuple[PositiveCount, ...] = (1, 2, 3, 5)
    """k of the mapping stage in table5, fig6, fig7 and fig8."""
    sweep_radii: tuple[Positive, ...] = (1.0, 5.0)
    """rho of the mapping stage in these."""
    rows: PositiveCount = 10_000
    """Test ratings at most, drawn at random, the same for all methods."""
    grid: PositiveCount = 51
    """Points along each side of a landscape; odd."""
    core: Annotated[int, Field(ge=0)] = 5
    """Ratings that every user and every item of a file keeps at least, in both domains."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU where one is usable."""
    jobs: PositiveCount | None = None
    """Models at once, each in a process of its own; None takes all cores. Results do not depend
    on it."""
    out: str | None = None
    """Folder to write, and to go on from; None makes a new one under runs/."""
    cache: str | None = None
    """Folder of pretrained factors; None is SCDR_CACHE, or the user's cache folder."""
    cache_gb: Positive = 4.0
    """Size that the cache may have, in GB; what was used least recently goes first."""

    def comparison(self, methods: Sequence[str], betas: Sequence[float]) -> CompareConfig:
        """The comparison whose runs train these methods."""
        return compare.from_dict(
            {
                "pairs": [dataclasses.asdict(pair) for pair in self.pairs],
                "betas": list(betas),
                "seeds": list(self.seeds),
                "methods": list(methods),
                "preset": self.preset,
                "core": self.core,
                "device": self.device,
                "jobs": self.jobs,
                "cache": self.cache,
                "cache_gb": self.cache_gb,
            },
            where="command line",
        )


def read_config(arguments: Sequence[str], *, program: str) -> AnalyzeConfig:
    """A configuration from command-line arguments.

    Raises:
        InputError: an unknown recipe, a value out of range, or options that do not go together.
        SystemExit: status 2 on an unknown option, 0 after `--help`.
    """
    parsed = tyro.cli(
        AnalyzeConfig,
        prog=program,
        description=_DESCRIPTION,
        args=list(arguments),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    values = dataclasses.asdict(parsed)
    config: AnalyzeConfig = checked(AnalyzeConfig, values, where="command line")
    for name in config.recipe:
        if name not in (ALL, *RECIPES):
            raise InputError(
                f"unknown recipe {name!r}",
                where="--recipe",
                fix=f"choose of {', '.join(RECIPES)}, {ALL}",
            )
    if not config.runs and not config.recipe:
        raise InputError(
            "nothing to analyse", fix="give run folders, or --recipe with one of its names"
        )
    if config.runs and (config.pairs or config.betas):
        raise InputError(
            "run folders and data at once", where="--pairs, --betas", fix="give one of them"
        )
    if config.grid % 2 == 0:
        raise InputError(f"grid is {config.grid}", where="--grid", fix="make it odd")
    for run in config.runs:
        if config.out is not None and Path(run).resolve() == Path(config.out).resolve():
            raise InputError(
                "the output would go into a folder that is read",
                where="--out",
                fix="give another --out",
            )
    return config


_DESCRIPTION = (
    "Measure how robust and how flat fitted methods are, and draw the paper's figures of it: of "
    "finished runs, or of methods that a recipe trains."
)

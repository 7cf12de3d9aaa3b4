"""The report of an analysis: of run folders, or of recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from scdr.device import environment
from scdr.experiments.work import Work
from scdr.recipes.catalogue import RECIPES
from scdr.recipes.config import AnalyzeConfig
from scdr.recipes.measure import Task
from scdr.recipes.models import read_run
from scdr.recipes.planning import distinct
from scdr.recipes.study import Measurements
from scdr.report.page import FAILED, Page, Section
from scdr.report.recipe_sections import hyperparameter_section, write_recipe
from scdr.report.run_pages import environment_section, run_section


def analysis_page(
    config: AnalyzeConfig,
    tasks: Mapping[str, Sequence[Task]],
    store: Measurements,
    folder: Path,
    failures: Mapping[str, str],
) -> Page:
    """Write figures and tables of all recipes, and make the report of them.

    Args:
        config: what was asked for.
        tasks: models of each recipe.
        store: their measurements.
        folder: to write to.
        failures: why models failed, by their places.

    Raises:
        InputError: a file can't be written.
    """
    wide = "fig4" if "fig4" in tasks else "fig2"
    sections = [run_section(Path(run), read_run(Path(run))) for run in config.runs]
    for name, some in tasks.items():
        section = write_recipe(name, some, store, folder, rotatable=name == wide)
        sections.append(section or _not_applicable(name))
    everything = distinct(tasks)
    if not config.runs:
        sections.append(hyperparameter_section(everything, store))
    source = everything[0].subject.source
    device = torch.device(source.device if isinstance(source, Work) else "cpu")
    sections.append(environment_section(environment(device, everything[0].threads)))
    pairs = dict.fromkeys(task.subject.pair for task in everything)
    failed = tuple(f"{FAILED} {place}: {error}." for place, error in failures.items())
    return Page(
        title=f"{'Analysis of runs' if config.runs else 'Robustness and flatness'}: "
        f"{', '.join(pairs)}",
        summary=(*_summary(config, everything), *failed),
        sections=tuple(sections),
    )


def _not_applicable(name: str) -> Section:
    return Section(
        name=name,
        title=RECIPES[name].title,
        about=RECIPES[name].about,
        findings=("This does not apply to any of the methods.",),
    )


def _summary(config: AnalyzeConfig, tasks: Sequence[Task]) -> tuple[str, ...]:
    presets = " and ".join(dict.fromkeys(task.subject.preset for task in tasks))
    seeds = len({task.subject.seed for task in tasks})
    return (
        f"{len(tasks)} models, {seeds} {'seed' if seeds == 1 else 'seeds'}, preset {presets}; at "
        f"most {config.rows:,} test ratings of each split, the same for all methods. Errors are "
        "those of linear predictions, not clipped, so that a model cannot hide behind the ends of "
        "the scale; Table VII and Fig. 7, where nothing is attacked, have predictions as the "
        "preset makes them.",
        "Vectors differ in scale between methods and presets: an absolute eps is a different "
        "attack on each. eps in RMS of coordinates is the same one on all.",
    )

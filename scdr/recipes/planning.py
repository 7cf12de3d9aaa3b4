"""Which models and measurements recipes need, each once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from scdr.device import available_threads
from scdr.errors import InputError
from scdr.experiments.cache import default_folder
from scdr.experiments.comparison import GB, Pair, plan
from scdr.methods import CONTROLS
from scdr.recipes.catalogue import ALL, OF_RUNS, RECIPES, Recipe
from scdr.recipes.config import AnalyzeConfig
from scdr.recipes.measure import Options, Task
from scdr.recipes.models import Subject, read_subject, trained_subject


def recipes_of(config: AnalyzeConfig) -> dict[str, Recipe]:
    """The recipes asked for, in the order of the catalogue."""
    default = OF_RUNS if config.runs else ()
    asked = config.recipe or default
    if ALL in asked:
        asked = OF_RUNS if config.runs else tuple(RECIPES)
    return {name: RECIPES[name] for name in RECIPES if name in asked}


def trained_tasks(config: AnalyzeConfig, pairs: Sequence[Pair]) -> dict[str, list[Task]]:
    """For each recipe its models, those of several recipes with all that these measure.

    Raises:
        ScdrError: the device can't be used.
    """
    recipes = recipes_of(config)
    subjects = {name: _trained(config, pairs, recipe) for name, recipe in recipes.items()}
    return _tasks(config, subjects)


def read_tasks(config: AnalyzeConfig) -> dict[str, list[Task]]:
    """For each recipe the models in the run folders.

    Raises:
        InputError: a folder is no finished run of a method with a mapping, or given twice.
    """
    subjects = [read_subject(Path(run)) for run in config.runs]
    names = [subject.source for subject in subjects]
    if len(set(names)) < len(names):
        raise InputError("a run folder is given twice", fix="give each once")
    subjects = _told_apart(subjects)
    return _tasks(config, dict.fromkeys(recipes_of(config), subjects))


def _told_apart(subjects: list[Subject]) -> list[Subject]:
    """Runs of one method on one split but other hyper-parameters, by the names of their folders."""

    def key(subject: Subject) -> tuple[object, ...]:
        return subject.pair, subject.beta, subject.seed, subject.label, subject.k, subject.rho

    keys = [key(subject) for subject in subjects]
    twice = {subject.label for subject in subjects if keys.count(key(subject)) > 1}
    presets = {subject.label: set[str]() for subject in subjects}
    for subject in subjects:
        presets[subject.label].add(subject.preset)

    def named(subject: Subject) -> Subject:
        label = subject.label
        if label in twice:
            label = f"{label} ({Path(str(subject.source)).name})"
        elif len(presets[label]) > 1:
            label = f"{label} ({subject.preset})"
        return dataclasses.replace(subject, label=label)

    return [named(subject) for subject in subjects]


def _trained(config: AnalyzeConfig, pairs: Sequence[Pair], recipe: Recipe) -> list[Subject]:
    comparison = config.comparison(recipe.method_names(), config.betas or recipe.betas)
    works = [work for work in plan(comparison, pairs) if work.method not in CONTROLS]
    if not recipe.swept:
        return [trained_subject(work) for work in works]
    return [
        trained_subject(
            work,
            dataclasses.replace(
                work.hyper, mapping=dataclasses.replace(work.hyper.mapping, steps=k, radius=rho)
            ),
        )
        for work in works
        for rho in config.sweep_radii
        for k in config.sweep_steps
    ]


def _tasks(config: AnalyzeConfig, subjects: dict[str, list[Subject]]) -> dict[str, list[Task]]:
    options = Options(
        rows=config.rows,
        grid=config.grid,
        steps=max(config.sweep_steps),
        radii=tuple(config.sweep_radii),
    )
    kinds: dict[str, dict[str, None]] = {}
    for name, some in subjects.items():
        for subject in some:
            kinds.setdefault(subject.digest, {})[RECIPES[name].kind] = None
    jobs = config.jobs or available_threads()
    return {
        name: [
            Task(
                subject=subject,
                kinds=tuple(kinds[subject.digest]),
                options=options,
                threads=max(1, available_threads() // jobs),
                cache=Path(config.cache) if config.cache else default_folder(),
                cache_limit=int(config.cache_gb * GB),
            )
            for subject in some
        ]
        for name, some in subjects.items()
    }


def distinct(tasks: Mapping[str, Sequence[Task]]) -> list[Task]:
    """Each model once, pair by pair and split by split."""
    return list({task.subject.digest: task for some in tasks.values() for task in some}.values())

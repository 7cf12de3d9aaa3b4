"""What is measured on one fitted model, as rows that JSON holds."""

from __future__ import annotations

import dataclasses
import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from scdr.analysis import (
    LEVELS,
    RatingErrors,
    RobustError,
    cold_start_errors,
    draw_directions,
    flatness,
    landscape,
    rating_attack,
    robustness,
    surrogate_errors,
)
from scdr.analysis.attacks import fgsm
from scdr.analysis.robustness import mean_errors
from scdr.errors import ScdrError
from scdr.experiments.cache import FactorCache
from scdr.methods import METHODS, FitContext
from scdr.methods.pretraining import pretrain_domain
from scdr.models import Factors, PretrainConfig
from scdr.prediction import metrics_of, predict_test
from scdr.recipes.models import FittedModel, Subject, fitted

Rows = list[dict[str, Any]]

RELATIVE_RADIUS = 0.25
"""Radius of the ball that all methods are compared in, in RMS lengths of their user vectors."""
SURROGATE = "task_mapping"
SURROGATE_SEED = 1_000
"""Added to a run's seed for the attacker's own training on the same split."""
CHANGES = 10
"""The most source ratings of a user that an attacker changes."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What measurements depend on beside the model.

    Attributes:
        rows: test ratings at most, the same for all methods of a split.
        grid: points along each side of a landscape.
        steps: k of the perturbation that Lipschitz ratios are taken at.
        radii: rho of it.
    """

    rows: int
    grid: int
    steps: int
    radii: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One model and what to measure on it; travels between processes."""

    subject: Subject
    kinds: tuple[str, ...]
    options: Options
    threads: int
    cache: Path
    cache_limit: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Rows by kind of measurement, or why there are none.

    Attributes:
        rows: a list for each kind of measurement.
        hyper: the model's hyper-parameters.
        error: why it failed, in one line; None where it did not.
        trace: of an error that is not the user's.
        notes: what the user should know.
    """

    rows: dict[str, Rows] = dataclasses.field(default_factory=dict)
    hyper: dict[str, Any] = dataclasses.field(default_factory=dict)
    error: str | None = None
    trace: str | None = None
    notes: tuple[str, ...] = ()


def measure(task: Task) -> Outcome:
    """Fit or read a model and measure it; an error is an outcome as well."""
    cache = FactorCache(task.cache, limit=task.cache_limit)
    torch.set_num_threads(task.threads)
    try:
        model = _Model(task, fitted(task.subject, cache), cache)
        outcome = Outcome(
            rows={kind: KINDS[kind](model) for kind in task.kinds},
            hyper=dataclasses.asdict(model.fit.hyper),
        )
    except ScdrError as error:
        outcome = Outcome(error=str(error))
    except Exception as error:  # one model must not end the others
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        outcome = Outcome(error=line, trace=traceback.format_exc())
    return dataclasses.replace(outcome, notes=tuple(cache.notes))


@dataclass
class _Model:
    task: Task
    fit: FittedModel
    cache: FactorCache

    @cached_property
    def errors(self) -> RatingErrors:
        return cold_start_errors(self.fit.predictor, self.fit.split, rows=self.task.options.rows)

    @property
    def unit(self) -> float:
        """Of the radius that the mapping was trained with, in the units of the user vectors."""
        mapping = getattr(self.fit.hyper, "mapping", None)
        return self.errors.coordinate_rms() if getattr(mapping, "standardise", False) else 1.0

    def context(self, seed: int) -> FitContext:
        return FitContext(
            seed=seed,
            device=self.fit.device,
            threads=self.task.threads,
            pretrained=self.cache,
        )


def _performance(model: _Model) -> Rows:
    fit = model.fit
    found = metrics_of(fit.split.test, predict_test(fit.predictor, fit.split, clip=fit.clip))
    return [{"mae": found.mae, "rmse": found.rmse}]


def _fgsm(model: _Model) -> Rows:
    errors = model.errors
    return [
        dataclasses.asdict(
            RobustError(
                "fgsm",
                None,
                level,
                scale,
                *mean_errors(errors.at(errors.vectors + fgsm(errors, level * scale))),
            )
        )
        for scale in (1.0, errors.coordinate_rms())
        for level in LEVELS
    ]


def _attacks(model: _Model) -> Rows:
    method = METHODS[SURROGATE]
    seed = model.task.subject.seed + SURROGATE_SEED
    hyper = method.presets[model.task.subject.preset]
    other = method.fit(model.fit.split.training, hyper, model.context(seed))
    theirs = cold_start_errors(other, model.fit.split, rows=model.task.options.rows)
    surrogate = surrogate_errors(theirs, model.errors)
    return [
        dataclasses.asdict(row)
        for relative in (False, True)
        for row in robustness(model.errors, surrogate=surrogate, relative=relative)
    ]


def _flatness(model: _Model) -> Rows:
    errors, options = model.errors, model.task.options
    width = errors.vectors.shape[1]
    length = RELATIVE_RADIUS * errors.coordinate_rms() * math.sqrt(width)
    probes = [("absolute", options.steps, rho, 1.0) for rho in options.radii]
    # One step reaches the ball, as it does at the paper's rho = 1.
    probes.append(("relative", options.steps, length, length))
    if model.task.subject.k and model.task.subject.rho:
        own = model.task.subject.rho * model.unit
        probes.append(("own", model.task.subject.k, own, model.unit))
    return [
        {"probe": probe, "probe_k": steps, "probe_rho": radius}
        | dataclasses.asdict(
            flatness(
                model.fit.predictor,
                errors,
                steps=steps,
                radius=radius,
                step_size=step / math.sqrt(width),
            )
        )
        for probe, steps, radius, step in probes
    ]


def _landscape(model: _Model) -> Rows:
    directions = draw_directions(model.errors.vectors.shape[1], seed=model.task.subject.seed)
    found = landscape(model.errors, directions, size=model.task.options.grid)
    return [
        {
            "zeta": found.zeta.tolist(),
            "gamma": found.gamma.tolist(),
            "mae": found.mae.tolist(),
            "width": model.errors.vectors.shape[1],
            "ratings": len(model.errors),
        }
    ]


def _changed_ratings(model: _Model) -> Rows:
    """None where the method's vectors are no factors that a user could be folded into again."""
    factors = _source_factors(model)
    if factors is None:
        return []
    config: PretrainConfig = model.fit.hyper.pretrain
    penalties = {
        name: value
        for name in ("user_penalty", "user_bias_penalty")
        if (value := getattr(config, name)) > 0
    }
    found = rating_attack(
        model.errors, model.fit.split.training.source, factors, changes=CHANGES, **penalties
    )
    return [dataclasses.asdict(row) for row in found]


def _source_factors(model: _Model) -> Factors | None:
    config = getattr(model.fit.hyper, "pretrain", None)
    if not isinstance(config, PretrainConfig):
        return None
    source = model.fit.split.training.source
    factors = pretrain_domain(source, config, model.context(model.task.subject.seed), "source")
    own, known = model.errors.vectors, factors.user_vectors()[model.errors.users]
    same = own.shape == known.shape and torch.allclose(own, known, rtol=1e-4, atol=1e-4)
    return factors if same else None


KINDS: Mapping[str, Callable[[_Model], Rows]] = {
    "performance": _performance,
    "fgsm": _fgsm,
    "attacks": _attacks,
    "flatness": _flatness,
    "landscape": _landscape,
    "changed_ratings": _changed_ratings,
}
"""Measurements by name."""

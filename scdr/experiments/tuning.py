"""A search over hyper-parameters that sees validation users alone (Optuna's TPE sampler)."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scdr.data import TrainingData
from scdr.errors import DivergenceError, InputError
from scdr.hyperparameters import OneOf, SearchSpace, Whole
from scdr.methods import FactorPredictor, FitContext, Method
from scdr.options import checked, overlay
from scdr.prediction import metrics_of, predict_validation

if TYPE_CHECKING:
    import optuna

WORST = 1e6
"""What the sampler is told of training that diverged, in rating units."""


@dataclass(frozen=True)
class Tuned:
    """A search over hyper-parameters.

    Attributes:
        best: the chosen values, by dotted name.
        rmse: RMSE on validation users with them.
        trials: each trial's values and its RMSE, None where training diverged; the first trial is
            the preset.
    """

    best: dict[str, Any]
    rmse: float
    trials: list[tuple[dict[str, Any], float | None]]


def tune(
    method: Method,
    hyper: Any,
    data: TrainingData,
    context: Callable[[], FitContext],
    *,
    trials: int,
    clip: bool,
) -> tuple[FactorPredictor, Tuned]:
    """Fit a method `trials` times, and keep the fit with the lowest RMSE on validation users.

    Trials follow one another and the sampler starts from the run's seed, so that a search repeats.

    Args:
        method: with a search space.
        hyper: hyper-parameters to start from; the first trial takes them as they are.
        data: training data with validation users.
        context: makes what a fit needs, anew for each trial.
        trials: fits in all.
        clip: whether predictions are clipped.

    Raises:
        InputError: there is no validation user, or Optuna is missing.
        DivergenceError: every trial diverged.
    """
    if not len(data.validation):
        raise InputError(
            "no validation user to choose hyper-parameters on", fix="raise --validation-fraction"
        )
    optuna = import_optuna()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=context().seed % 2**32)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    kept: tuple[float, FactorPredictor | None] = (math.inf, None)
    tried: list[tuple[dict[str, Any], float | None]] = []
    for number in range(trials):
        # The preset is a trial, but may lie outside the search space, where the sampler can't go.
        trial = study.ask() if number else None
        values = _draw(trial, method.search_space) if trial else _start(hyper, method.search_space)
        try:
            predictor = method.fit(data, _put(hyper, values), context())
        except DivergenceError:
            rmse = math.inf
        else:
            predicted = predict_validation(predictor, data, clip=clip)
            rmse = metrics_of(data.validation, predicted).rmse
            if rmse < kept[0]:
                kept = rmse, predictor
        if trial:
            study.tell(trial, min(rmse, WORST))
        tried.append((values, rmse if math.isfinite(rmse) else None))
    rmse, best = kept
    if best is None:
        raise DivergenceError(f"training diverged in all {trials} trials", fix="give more of them")
    chosen = next(values for values, value in tried if value == rmse)
    return best, Tuned(best=chosen, rmse=rmse, trials=tried)


def import_optuna() -> Any:
    """The optuna package.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "Optuna is not installed", where="--tune", fix="pip install 'scdr[tune]'"
        ) from error
    return optuna


def _draw(trial: optuna.Trial, space: SearchSpace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, among in space.items():
        if isinstance(among, OneOf):
            values[name] = trial.suggest_categorical(name, among.values)
        elif isinstance(among, Whole):
            values[name] = trial.suggest_int(name, among.low, among.high, log=among.log)
        else:
            values[name] = trial.suggest_float(name, among.low, among.high, log=among.log)
    return values


def _start(hyper: Any, space: SearchSpace) -> dict[str, Any]:
    return {name: operator.attrgetter(name)(hyper) for name in space}


def _put(hyper: Any, values: dict[str, Any]) -> Any:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return checked(type(hyper), overlay(dataclasses.asdict(hyper), nested), where="--tune")

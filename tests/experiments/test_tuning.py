"""The search over hyper-parameters: the same budget for all, and no look at test users."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scdr.data import ColdStartSplit, TrainingData, cold_start_split
from scdr.errors import DivergenceError, InputError
from scdr.experiments.tuning import Tuned, tune
from scdr.hyperparameters import OneOf, Real, Whole
from scdr.methods import METHODS, FactorPredictor, FitContext, Method
from scdr.prediction import predict_test

SCDR = METHODS["scdr"]


def short(method: Method) -> Any:
    hyper = method.presets["default"]
    return replace(hyper, pretrain=replace(hyper.pretrain, epochs=3))


def context(seed: int = 0) -> Callable[[], FitContext]:
    return lambda: FitContext(seed=seed)


def searched(
    method: Method, data: TrainingData, *, seed: int = 0, trials: int = 4
) -> tuple[FactorPredictor, Tuned]:
    return tune(method, short(method), data, context(seed), trials=trials, clip=True)


def counting(method: Method) -> tuple[Method, list[Any]]:
    tried: list[Any] = []

    def fit(data: TrainingData, hyper: Any, context: FitContext) -> FactorPredictor:
        tried.append(hyper)
        return method.fit(data, hyper, context)

    return replace(method, fit=fit, search_space=short_space(method)), tried


def short_space(method: Method) -> dict[str, Any]:
    return {name: v for name, v in method.search_space.items() if not name.endswith("epochs")}


@pytest.mark.parametrize("name", ["tgt", "emcdr", "scdr"])
def test_every_method_has_the_same_number_of_fits(name: str, split: ColdStartSplit) -> None:
    method, tried = counting(METHODS[name])
    _, tuned = searched(method, split.training)
    assert len(tried) == len(tuned.trials) == 4
    assert tried[0] == short(method)  # the preset is one of them
    assert tuned.rmse == min(rmse for _, rmse in tuned.trials if rmse is not None)
    assert tuned.best in [values for values, _ in tuned.trials]
    for hyper in tried[1:]:
        for field, space in method.search_space.items():
            assert space.low <= operator.attrgetter(field)(hyper) <= space.high


def test_a_seed_repeats_a_search_and_another_one_does_not(split: ColdStartSplit) -> None:
    method, _ = counting(SCDR)
    (first, one), (second, two), (_, three) = (
        searched(method, split.training, seed=seed) for seed in (0, 0, 1)
    )
    assert one == two != three
    np.testing.assert_array_equal(
        predict_test(first, split, clip=True), predict_test(second, split, clip=True)
    )


def test_test_users_ratings_change_nothing_and_validation_users_do(split: ColdStartSplit) -> None:
    method, _ = counting(SCDR)
    _, before = searched(method, split.training)
    for rows, same in ((split.test_rows, True), (split.validation_rows, False)):
        ratings = split.domains.target.ratings.copy()
        ratings[rows] = 1.0
        target = replace(split.domains.target, ratings=ratings)
        other = cold_start_split(
            replace(split.domains, target=target),
            beta=split.beta,
            seed=split.seed,
            validation_fraction=split.validation_fraction,
        )
        assert (searched(method, other.training)[1] == before) == same


def test_trials_that_diverge_count_and_are_not_chosen(split: ColdStartSplit) -> None:
    wild = replace(SCDR, search_space={"pretrain.learning_rate": Real(50.0, 90.0)})
    _, tuned = searched(wild, split.training, trials=3)
    assert [rmse is None for _, rmse in tuned.trials] == [False, True, True]
    hyper = short(SCDR)
    broken = replace(hyper, pretrain=replace(hyper.pretrain, learning_rate=90.0))
    with pytest.raises(DivergenceError, match="all 2 trials"):
        tune(wild, broken, split.training, context(), trials=2, clip=True)


def test_it_needs_validation_users(split: ColdStartSplit) -> None:
    none = replace(split.training, validation=split.training.validation.take(np.zeros(0, int)))
    with pytest.raises(InputError, match="validation"):
        searched(SCDR, none)


def test_kinds_of_values(split: ColdStartSplit) -> None:
    space = {
        "mapping.hidden": Whole(3, 9),
        "mapping.standardise": OneOf((True, False)),
        "mapping.weight_decay": Real(0.0, 1.0, log=False),
    }
    _, tuned = searched(replace(SCDR, search_space=space), split.training, trials=6)
    for values, _ in tuned.trials[1:]:
        assert 3 <= values["mapping.hidden"] <= 9
        assert values["mapping.standardise"] in (True, False)
        assert 0 <= values["mapping.weight_decay"] <= 1


@pytest.mark.parametrize("name", METHODS)
def test_what_a_search_varies_exists(name: str) -> None:
    method = METHODS[name]
    assert method.search_space  # all methods get the same budget, and must be able to use it
    for hyper in method.presets.values():
        for field in method.search_space:
            operator.attrgetter(field)(hyper)

from __future__ import annotations

import numpy as np
import pytest

from scdr.data import ColdStartSplit, source_users
from scdr.methods import CONTROLS, FitContext
from scdr.methods.controls import ControlConfig, ridge_line
from scdr.models import fit_biases


def predict(name: str, split: ColdStartSplit) -> np.ndarray:
    predictor = CONTROLS[name].fit(split.training, ControlConfig(), FitContext())
    return predictor.predict(source_users(split.test_pairs, split.test), split.test.items)


def test_ridge_line_is_ridge_regression_with_a_free_intercept() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(2, 1, 30), generator.normal(-1, 2, 30)
    design = np.stack([np.ones(30), x], axis=1)
    expected = np.linalg.solve(design.T @ design + np.diag([0, 3.0]), design.T @ y)
    assert ridge_line(x, y, penalty=3.0) == pytest.approx(tuple(expected))


def test_global_and_item_mean(split: ColdStartSplit) -> None:
    target = split.training.target
    mean = target.ratings.mean(dtype=np.float64)
    np.testing.assert_allclose(predict("global_mean", split), mean, rtol=1e-6)
    for item, predicted in zip(split.test.items, predict("item_mean", split), strict=True):
        own = target.ratings[target.items == item].astype(np.float64)
        assert predicted == pytest.approx((own.sum() + 5 * mean) / (len(own) + 5), rel=1e-5)


@pytest.mark.parametrize("name", ["bias_transfer", "bias_transfer_weighted"])
def test_bias_transfer_by_its_definition(name: str, split: ColdStartSplit) -> None:
    training = split.training
    source, target = fit_biases(training.source), fit_biases(training.target)
    x, y = [], []
    for source_user, target_user in training.train_pairs:
        own = np.flatnonzero(training.target.users == target_user)
        if name == "bias_transfer":
            x.append(source.user[source_user])
            y.append(target.user[target_user])
        for row in own if name == "bias_transfer_weighted" else []:
            x.append(source.user[source_user])
            item = training.target.items[row]
            y.append(training.target.ratings[row] - target.mean - target.item[item])
    penalty = 1.0 if name == "bias_transfer" else 10.0
    design = np.stack([np.ones(len(x)), x], axis=1)
    intercept, slope = np.linalg.solve(
        design.T @ design + np.diag([0, penalty]), design.T @ np.array(y)
    )
    users = source_users(split.test_pairs, split.test)
    expected = target.mean + target.item[split.test.items] + intercept + slope * source.user[users]
    np.testing.assert_allclose(predict(name, split), expected, rtol=1e-5)

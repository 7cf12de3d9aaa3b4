"""What every method and every control must do, whatever it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scdr.data import ColdStartSplit, Interactions, source_users
from scdr.methods import CONTROLS, METHODS, FactorPredictor, FitContext, Method
from scdr.methods.base import UNKNOWN

EVERY = {**METHODS, **CONTROLS}
PRESETS = ("default", "paper")


def fitted(method: Method, split: ColdStartSplit, preset: str = "default", **context: Any) -> Any:
    return method.fit(split.training, method.presets[preset], FitContext(**context))


def predictions(predictor: FactorPredictor, split: ColdStartSplit) -> np.ndarray:
    return predictor.predict(source_users(split.test_pairs, split.test), split.test.items)


@pytest.fixture(params=EVERY, scope="module")
def method(request: pytest.FixtureRequest) -> Method:
    return EVERY[request.param]


@pytest.fixture(params=PRESETS, scope="module")
def preset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def predictor(method: Method, preset: str, split: ColdStartSplit) -> FactorPredictor:
    return fitted(method, split, preset)


def test_name_and_registry_agree(method: Method) -> None:
    assert EVERY[method.name] is method
    assert set(method.presets) == set(PRESETS)
    assert method.mapping_based <= method.cross_domain


def test_predictions_are_finite_and_one_for_each_row(
    predictor: FactorPredictor, split: ColdStartSplit
) -> None:
    result = predictions(predictor, split)
    assert result.dtype == np.float32
    assert result.shape == split.test.ratings.shape
    assert np.isfinite(result).all()


def test_a_prediction_does_not_depend_on_the_others(
    predictor: FactorPredictor, split: ColdStartSplit
) -> None:
    users, items = source_users(split.test_pairs, split.test)[:5], split.test.items[:5]
    one_by_one = [
        predictor.predict(users[k : k + 1], items[k : k + 1])[0] for k in range(len(users))
    ]
    np.testing.assert_allclose(predictor.predict(users, items), one_by_one, rtol=1e-5)


def test_unknown_user_and_item_get_what_is_known_without_them(
    predictor: FactorPredictor, split: ColdStartSplit
) -> None:
    mean = split.training.target.ratings.mean()
    nobody, nothing = np.array([UNKNOWN]), np.array([UNKNOWN])
    assert predictor.predict(nobody, nothing)[0] == pytest.approx(mean, rel=1e-5)
    known_item = predictor.predict(nobody, np.array([3]))
    known_user = predictor.predict(np.array([3]), nothing)
    assert 1 <= known_item[0] <= 5
    assert np.isfinite(known_user[0])


def test_an_empty_batch_is_an_empty_answer(predictor: FactorPredictor) -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert predictor.predict(nothing, nothing).shape == (0,)


def test_an_index_out_of_range_is_an_error(
    predictor: FactorPredictor, split: ColdStartSplit
) -> None:
    with pytest.raises(ValueError, match=r"^users "):
        predictor.predict(np.array([split.domains.source.n_users]), np.array([0]))
    with pytest.raises(ValueError, match=r"^items "):
        predictor.predict(np.array([0]), np.array([-2]))


def test_saved_and_loaded_it_predicts_the_same(
    predictor: FactorPredictor, split: ColdStartSplit, tmp_path: Path
) -> None:
    domains = split.domains
    path = tmp_path / "model.safetensors"
    predictor.save(
        path,
        domains=domains,
        metadata={"clip": True},
    )
    saved = FactorPredictor.load(path)
    assert saved.metadata == {"clip": True}
    np.testing.assert_array_equal(saved.user_ids, domains.source.user_ids)
    np.testing.assert_array_equal(saved.item_ids, domains.target.item_ids)
    np.testing.assert_array_equal(
        predictions(saved.predictor, split), predictions(predictor, split)
    )


def test_a_seed_repeats_to_the_bit_at_any_thread_count(
    method: Method, preset: str, predictor: FactorPredictor, split: ColdStartSplit
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2 if before == 1 else 1)
    try:
        again = fitted(method, split, preset, threads=2)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(predictions(again, split), predictions(predictor, split))


def test_another_seed_trains_another_model(split: ColdStartSplit) -> None:
    for method in METHODS.values():
        first, second = (predictions(fitted(method, split, seed=s), split) for s in (0, 1))
        assert not np.array_equal(first, second), method.name


def test_test_users_ratings_change_nothing(
    method: Method, predictor: FactorPredictor, preset: str, split: ColdStartSplit
) -> None:
    """A method that saw them in any way would predict otherwise once they are others."""
    target, rows = split.domains.target, split.test_rows
    ratings, items, times = target.ratings.copy(), target.items.copy(), target.times.copy()
    ratings[rows] = 1.0
    items[rows] = (items[rows] + 1) % target.n_items
    times[rows] += 1
    other = replace_target(split, replace(target, ratings=ratings, items=items, times=times))
    np.testing.assert_array_equal(
        predictions(fitted(method, other, preset), split), predictions(predictor, split)
    )


def replace_target(split: ColdStartSplit, target: Interactions) -> ColdStartSplit:
    from scdr.data import cold_start_split

    return cold_start_split(
        replace(split.domains, target=target),
        beta=split.beta,
        seed=split.seed,
        validation_fraction=split.validation_fraction,
    )

"""What a distribution of ratings is judged to be worth, on ratings drawn from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scdr.data import ColdStartSplit, cold_start_split, planted
from scdr.methods import FactorPredictor
from scdr.models import TargetItems
from scdr.models.rating_distribution import RatingDistribution
from scdr.prediction import calibration_lines, judge_distribution, other_points

NONE = np.zeros(0)
STEPS = (np.arange(50) + 0.5) / 50
DISTRIBUTIONS = {
    "five levels": RatingDistribution(
        np.arange(1.0, 6.0), np.array([-3.0, -1.5, 0.0, 1.5]), NONE, pull=0.3
    ),
    "ten levels": RatingDistribution(
        np.arange(0.5, 5.5, 0.5), np.linspace(-4.0, 2.0, 9), NONE, pull=0.3
    ),
    "continuous": RatingDistribution(
        np.array([0.0, 100.0]), NONE, 15 * (-np.log(1 - STEPS) - 1), pull=3.0
    ),
}


@pytest.fixture(scope="module")
def large() -> ColdStartSplit:
    """Some 9,000 test ratings, for shares that chance moves little."""
    made = planted(
        source_users=700,
        overlap_users=600,
        target_only_users=100,
        source_items=80,
        target_items=80,
        source_ratings_per_user=15,
        target_ratings_per_user=30,
        seed=3,
    )
    return cold_start_split(made.domains, seed=0)


def drawn(
    distribution: RatingDistribution, split: ColdStartSplit
) -> tuple[FactorPredictor, ColdStartSplit]:
    """A predictor whose means differ by item, and the split with ratings drawn around them."""
    generator = np.random.default_rng(0)
    low, high = distribution.levels[0], distribution.levels[-1]
    means = np.linspace(low + 0.2 * (high - low), high - 0.1 * (high - low), 80)
    items = torch.from_numpy(np.append(means, means.mean())).float()
    target = split.domains.target
    mean = means[target.items]
    support, below = distribution._support(mean)
    chance = generator.random(len(mean))
    ratings: NDArray[np.float64] = np.take_along_axis(
        support, (below < chance[:, None]).sum(1)[:, None], axis=1
    )[:, 0]
    if len(distribution.quantiles):
        ratings = np.clip(mean + np.interp(chance, STEPS, distribution.quantiles), low, high)
    domains = replace(split.domains, target=replace(target, ratings=ratings.astype(np.float32)))
    predictor = FactorPredictor(
        source_vectors=torch.zeros(split.domains.source.n_users, 1),
        mapping=None,
        items=TargetItems(vectors=torch.zeros(len(items), 1), offsets=items, priors=items),
        distribution=distribution,
        optimise="both",
    )
    return predictor, cold_start_split(domains, beta=split.beta, seed=split.seed)


def judged(predictor: FactorPredictor, split: ColdStartSplit) -> dict[str, Any]:
    found = judge_distribution(predictor, split, clip=True)
    assert found is not None
    return found


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_ratings_from_the_distribution_itself_keep_its_promises(
    name: str, large: ColdStartSplit
) -> None:
    found = judged(*drawn(DISTRIBUTIONS[name], large))
    shares = [found["within_one_deviation"], *found["intervals"].values()]
    for share in shares:
        assert share["inside"] == pytest.approx(share["promised"], abs=0.015)
    for nominal, share in zip((0.5, 0.8, 0.9), shares[1:], strict=True):
        assert share["promised"] > nominal - 0.005
        if name == "continuous":  # whose intervals end where they should
            assert share["promised"] == pytest.approx(nominal, abs=0.03)
    assert found["standardised_rms"] == pytest.approx(1, abs=0.03)
    assert len(found["calibration"]) == 4
    for curve in found["calibration"]:
        assert len(curve["promised"]) == len(curve["observed"]) == 10
        assert curve["promised"] == sorted(curve["promised"])
        np.testing.assert_allclose(curve["observed"], curve["promised"], atol=0.06)


def test_a_distribution_that_is_too_narrow_shows(large: ColdStartSplit) -> None:
    predictor, split = drawn(DISTRIBUTIONS["five levels"], large)
    narrow = replace(predictor.distribution, thresholds=2 * predictor.distribution.thresholds)
    found = judged(replace(predictor, distribution=narrow), split)
    assert found["standardised_rms"] > 1.2
    for share in (found["within_one_deviation"], *found["intervals"].values()):
        assert share["inside"] < share["promised"] - 0.03


def test_levels_of_the_curves_are_those_above_the_lowest_or_quintiles(
    large: ColdStartSplit,
) -> None:
    def levels(name: str) -> list[float]:
        found = judged(*drawn(DISTRIBUTIONS[name], large))
        return [curve["level"] for curve in found["calibration"]]

    assert levels("five levels") == [2, 3, 4, 5]
    ten = levels("ten levels")
    assert ten == sorted(set(ten)) and set(ten) <= set(np.arange(1.0, 5.5, 0.5))
    _, split = drawn(DISTRIBUTIONS["continuous"], large)
    below = [(split.training.target.ratings < level).mean() for level in levels("continuous")]
    np.testing.assert_allclose(below, [0.2, 0.4, 0.6, 0.8], atol=0.01)


def test_in_words(large: ColdStartSplit) -> None:
    found = judged(*drawn(DISTRIBUTIONS["five levels"], large))
    found["intervals"] = {"50%": {"inside": 0.807, "promised": 0.8214, "width": 1.0}}
    found["within_one_deviation"] = {"inside": 0.7554, "promised": 0.77}
    found["standardised_rms"] = 1.0957
    assert calibration_lines(found) == [
        "Test ratings in 50 % intervals: 80.7 % (82.1 % promised).",
        "Within one standard deviation: 75.5 % (77.0 % promised); "
        "root mean square of error / deviation: 1.10.",
    ]
    assert [label for label, _ in other_points("M", found)] == ["M, median (mae)", "M, mean (rmse)"]
    assert calibration_lines(None) == other_points("M", None) == []


def test_a_scale_of_one_level_is_certain(large: ColdStartSplit) -> None:
    ratings = np.full_like(large.domains.target.ratings, 3)
    domains = replace(large.domains, target=replace(large.domains.target, ratings=ratings))
    predictor, _ = drawn(DISTRIBUTIONS["five levels"], large)
    certain = replace(predictor, distribution=RatingDistribution(np.array([3.0]), NONE, NONE))
    found = judged(certain, cold_start_split(domains, seed=0))
    assert found["standardised_rms"] is None
    assert found["calibration"] == []
    assert all(share["inside"] == share["promised"] == 1 for share in found["intervals"].values())
    assert (
        calibration_lines(found)[1] == "Within one standard deviation: 100.0 % (100.0 % promised)."
    )

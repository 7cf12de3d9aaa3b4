"""The paired test over users and Holm's correction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from scdr.evaluation import holm, paired_p_value


def test_it_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(1.0, 0.3, 40)
    second = first + generator.normal(0.05, 0.2, 40)
    difference, p = paired_p_value(np.arange(40), first, second)
    assert difference == pytest.approx((first - second).mean())
    assert p == pytest.approx(stats.ttest_rel(first, second).pvalue)


def test_by_hand() -> None:
    """Differences 1, 2, 3: t = 2 / (1 / sqrt(3)), and with 2 degrees of freedom
    p = 1 - t / sqrt(t^2 + 2)."""
    t = 2 * math.sqrt(3)
    difference, p = paired_p_value(
        np.array(["a", "b", "c"]), np.array([2.0, 3.0, 4.0]), np.array([1.0, 1.0, 1.0])
    )
    assert difference == pytest.approx(2)
    assert p == pytest.approx(1 - t / math.sqrt(t * t + 2))


def test_a_user_of_several_seeds_counts_once() -> None:
    users = np.array(["a", "b", "c", "a", "c", "a"])
    first = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    second = np.array([0.5, 2.5, 1.0, 3.0, 4.5, 3.0])
    means = np.array([(0.5 + 1 + 3) / 3, -0.5, (2 + 0.5) / 2])
    difference, p = paired_p_value(users, first, second)
    assert difference == pytest.approx(means.mean())
    assert p == pytest.approx(stats.ttest_1samp(means, 0).pvalue)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [([1.0, 2.0], [1.0, 2.0], 1.0), ([3.0], [1.0], 1.0), ([], [], 1.0), ([2.0, 3.0], [1, 2], 0.0)],
)
def test_where_there_is_nothing_to_test(
    first: list[float], second: list[float], expected: float
) -> None:
    assert paired_p_value(np.arange(len(first)), np.array(first), np.array(second))[1] == expected


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2, 2 and 1"):
        paired_p_value(np.arange(2), np.ones(2), np.ones(1))


def test_holm_by_hand() -> None:
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1 is .02, .03, .06, .04, and never falls."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])
    assert holm(np.zeros(0)).shape == (0,)

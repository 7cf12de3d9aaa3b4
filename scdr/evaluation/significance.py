"""Whether two methods differ on users: a paired test, corrected for the number of tests.

The test is Student's paired t-test on the users' errors, which J. Urbano, H. Lima, A. Hanjalic,
"Statistical significance testing in information retrieval: an empirical analysis of type I, type II
and type III errors" (SIGIR 2019) found to keep its level and to have the highest power.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def paired_p_value(
    users: NDArray[np.generic], first: NDArray[np.floating], second: NDArray[np.floating]
) -> tuple[float, float]:
    """Compare two methods' errors over users.

    Where a user was a test user in several splits, the mean of its differences counts once: its
    errors under several seeds are not independent.

    Args:
        users: `[n]` the user of each pair of errors.
        first: `[n]` errors of the first method.
        second: `[n]` errors of the second method.

    Returns:
        The mean over users of `first - second`, and the two-sided p-value of its being 0: 1 where
        no user differs, and where there are fewer than two users.

    Raises:
        ValueError: lengths that differ.
    """
    from scipy.stats import ttest_1samp  # a second to import: not for commands that do not test

    if not len(users) == len(first) == len(second):
        raise ValueError(
            f"users, first and second have {len(users)}, {len(first)} and {len(second)} entries"
        )
    _, user = np.unique(users, return_inverse=True)
    count = np.bincount(user)
    difference = np.bincount(user, weights=np.asarray(first, dtype=np.float64) - second) / count
    if len(difference) < 2 or not difference.any():
        return float(difference.mean()) if len(difference) else 0.0, 1.0
    if np.ptp(difference) == 0:  # the statistic is infinite
        return float(difference[0]), 0.0
    return float(difference.mean()), float(ttest_1samp(difference, 0.0).pvalue)


def holm(p_values: NDArray[np.floating]) -> NDArray[np.float64]:
    """p-values `[m]` corrected for their number, so that the chance of any false one keeps.

    S. Holm, "A simple sequentially rejective multiple test procedure" (Scandinavian Journal of
    Statistics, 1979).
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted

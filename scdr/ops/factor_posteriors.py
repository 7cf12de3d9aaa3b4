"""Gaussian posteriors of all users given the items they rated, or of all items given users."""

from __future__ import annotations

import torch
from torch import Tensor

from scdr import _native

OP = "factor_posteriors_: "


@torch.library.register_fake("scdr::factor_posteriors_")
def _fake(moments: Tensor, *_arguments: object, **_options: object) -> Tensor:
    return moments.new_empty((), dtype=torch.float64)


def factor_posteriors_(
    moments: Tensor,
    start: Tensor,
    others: Tensor,
    ratings: Tensor,
    other_moments: Tensor,
    precision: Tensor,
    group: Tensor,
    prior_mean: Tensor | None = None,
    *,
    noise: float,
) -> Tensor:
    """Update one side of a variational factor model, given the moments of the other.

    The model is `r = b_u + b_i + <u, v> + e`, `e ~ N(0, noise)`. Here for users; items are the
    same with the sides swapped. With `y = (b_u, u)` of a user, whose prior is `N(m, P^-1)`, with
    `a = (1, b_i, v)` of an item and `phi = (1, v)`, a user's posterior is Gaussian:

        precision = sum E[phi phi'] / noise + P
        E[y]      = precision^-1 (sum (r E[phi] - E[b_i phi]) / noise + P m)
        Cov[y]    = precision^-1

    (Lim and Teh, "Variational Bayesian approach to movie rating prediction", 2007.) A symmetric
    matrix is packed: its upper triangle, row by row. Moments are `E[a a']`, packed, so that columns
    1 to d + 1 are the means of bias and factors.

    Sums go over a user's ratings in their order, and nothing is fused: the same bits at any number
    of threads and on every SIMD level. Carries no gradient.

    Args:
        moments: float32 `[N, (d + 2)(d + 3) / 2]`, of the users; written, not read.
        start: int64 `[N + 1]`, where each user's ratings begin, from 0 to n.
        others: int32 `[n]`, the item of each rating.
        ratings: float32 `[n]`, less their mean.
        other_moments: float32 `[M, (d + 2)(d + 3) / 2]`, of the items.
        precision: float32 `[G, d + 1, d + 1]`, P of each group of users; d up to 256.
        group: int64 `[N]`, the group of each user.
        prior_mean: float32 `[N, d + 1]`, m; None for zeros.
        noise: variance of a rating.

    Returns:
        float64 `[]`, the sum over all ratings of `E[(r - b_u - b_i - <u, v>)^2]`.

    Raises:
        ValueError: an argument has a wrong shape, dtype, device or range, is not contiguous, or
            holds a value that is not finite; it is named.
    """
    try:
        error: Tensor = torch.ops.scdr.factor_posteriors_.default(
            moments,
            start,
            others,
            ratings,
            other_moments,
            precision,
            group,
            prior_mean,
            noise=noise,
        )
    except RuntimeError as error_of_native_code:
        _native.raise_named(error_of_native_code, OP)
        raise
    return error

"""An attacker who changes some of a user's source ratings, after which the user is folded in again.

The fold-in is the ridge regression of `scdr.models.fold_in`. In its letters, a rating changed by x
moves the user's vector by `x A^-1 y_j`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scdr.analysis.rating_errors import RatingErrors
from scdr.analysis.robustness import mean_errors
from scdr.data import Interactions
from scdr.models import Factors
from scdr.models.fold_in import Histories, RidgeFoldIn
from scdr.ops.threads import one_thread


@dataclass(frozen=True, slots=True)
class ChangedRatings:
    """The error where up to `changes` source ratings of each user are changed.

    Attributes:
        changes: m.
        mae: mean absolute error over test ratings; without a change that of the folded-in users.
        rmse: root of their mean squared error.
    """

    changes: int
    mae: float
    rmse: float


@one_thread()
@torch.no_grad()
def rating_attack(
    errors: RatingErrors,
    source: Interactions,
    factors: Factors,
    *,
    changes: int,
    user_penalty: float = 7.0,
    user_bias_penalty: float = 5.0,
) -> list[ChangedRatings]:
    """Change the ratings that raise a user's absolute errors most, one after the other.

    A changed rating becomes the lowest or the highest of the source. Each next one is that with the
    largest gain by the slope at the changed user. All predictions of a user up, all down, and each
    away from its rating are tried, and the worst that up to m changes led to counts, so the error
    never falls as m grows. On a linear map and a user with one test rating this is the true
    maximum. A bridge of the user's own stays as it is, as in the other attacks.

    Args:
        errors: of the attacked method (`cold_start_errors`).
        source: the source ratings that the factors were trained on.
        factors: of the source domain, those that the method's source vectors are from. A
            `FactorPredictor` does not hold them: pretraining gives them, or its cache.
        changes: the largest m.
        user_penalty: of the fold-in, on each factor; positive, since users may have fewer ratings
            than factors.
        user_bias_penalty: of the fold-in, on the user bias, where the factors have one.

    Returns:
        For m = 0 to `changes`.

    Raises:
        ValueError: an argument out of range, factors of another width or another domain, or a user
            without source ratings, by name.
    """
    if changes < 0:
        raise ValueError(f"changes is {changes}; it must be 0 or more")
    fold = _FoldIn.of(errors, source, factors, user_penalty, user_bias_penalty)
    ends = torch.tensor([source.ratings.min(), source.ratings.max()], dtype=torch.float64)
    position = torch.unique(errors.users.cpu(), return_inverse=True)[1]  # [n], place of the user

    def at(users: Tensor) -> tuple[Tensor, Tensor]:  # [K, d] -> [n], [n, d], float64 on the CPU
        values = errors.with_slopes_at(users[position].to(errors.vectors))
        return values[0].double().cpu(), values[1].double().cpu()

    def by_user(values: Tensor) -> Tensor:  # [n, ...] -> sums [K, ...]
        return values.new_zeros(len(fold.users), *values.shape[1:]).index_add_(0, position, values)

    worst = at(fold.users)[0].expand(changes + 1, -1).clone()  # [m + 1, n]
    for direction in (1.0, -1.0, None):  # up, down, away from the rating
        users, ratings = fold.users.clone(), fold.ratings.clone()
        untouched = torch.ones(len(ratings), dtype=torch.bool)
        for m in range(1, changes + 1):
            error, slope = at(users)
            sign = error.sgn() if direction is None else torch.full_like(error, direction)
            steepest = by_user(sign[:, None] * slope)  # [K, d]
            pull = (steepest[fold.user] * fold.influence).sum(1)  # [J]
            value = torch.where(pull > 0, ends[1], ends[0])  # [J]
            gain = torch.where(untouched, pull * (value - ratings), 0.0)
            chosen = _largest_of_each(gain, fold.user, len(users))
            users.index_add_(
                0,
                fold.user[chosen],
                (value - ratings)[chosen, None] * fold.influence[chosen],
            )
            ratings[chosen] = value[chosen]
            untouched[chosen] = False
            error = at(users)[0]
            worse = by_user(error.abs()) > by_user(worst[m].abs())  # [K]
            # What m changes reach, more changes reach too.
            worst[m:, worse[position]] = error[worse[position]]
    return [ChangedRatings(m, *mean_errors(worst[m])) for m in range(changes + 1)]


@dataclass(frozen=True, slots=True)
class _FoldIn:
    """The folded-in users and what each of their source ratings does to them.

    Attributes:
        users: `[K, d]` float64, in order of the source users.
        user: `[J]` int64, whose rating it is, 0 to K - 1.
        ratings: `[J]` float64.
        influence: `[J, d]` float64, `A^-1 y_j`.
    """

    users: Tensor
    user: Tensor
    ratings: Tensor
    influence: Tensor

    @classmethod
    def of(
        cls,
        errors: RatingErrors,
        source: Interactions,
        factors: Factors,
        user_penalty: float,
        user_bias_penalty: float,
    ) -> _FoldIn:
        ridge = RidgeFoldIn.of(
            factors, user_penalty=user_penalty, user_bias_penalty=user_bias_penalty
        )
        if ridge.items.shape[1] != errors.vectors.shape[1] or len(ridge.items) != source.n_items:
            raise ValueError(
                f"factors has {len(ridge.items)} items of width {ridge.items.shape[1]}; the source "
                f"has {source.n_items} items, the method's source vectors width "
                f"{errors.vectors.shape[1]}"
            )
        histories = Histories.of(source, torch.unique(errors.users.cpu()).numpy())
        if not histories.counts.all():
            raise ValueError("source has no rating of some of the users")
        parts = [
            np.linalg.solve(ridge.systems(part)[part.users], ridge.items[part.items][:, :, None])
            for part in histories.parts()
        ]
        influence = np.concatenate(parts)[:, :, 0]  # [J, d]
        residuals = histories.ratings - ridge.known[histories.items]
        return cls(
            torch.from_numpy(histories.sums(influence * residuals[:, None])),
            torch.from_numpy(histories.users),
            torch.from_numpy(histories.ratings),
            torch.from_numpy(influence),
        )


def _largest_of_each(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Where the first largest of the positive values of each group is, `[<= groups]` int64."""
    largest = values.new_zeros(groups).scatter_reduce_(0, group, values, "amax")
    found = torch.nonzero((values > 0) & (values == largest[group]))[:, 0]
    first = torch.full((groups,), len(values)).scatter_reduce_(0, group[found], found, "amin")
    return first[first < len(values)]

"""SCDR-B's source vector of a user whom training has not seen: `z = (profile, factors)`.

Bias and factors are the posterior mean of the domain's factor model given the user's ratings
(`scdr.models.empirical_bayes`): a ridge regression on the items, the bias included, whose penalties
are learned, and which counts what is not known of an item,

    Lambda = Sigma^-1 + sum_i E[phi_i phi_i'] / noise,   phi_i = (1, v_i)
    x = Lambda^-1 sum_i (r_i E[phi_i] - E[b_i phi_i]) / noise.

The covariances of the items are not kept. That of an item with n ratings is taken as if they came
from average raters, `(Psi^-1 + n mean E[phi_u phi_u'] / noise)^-1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from scdr.data import Interactions
from scdr.models.empirical_bayes import EmpiricalBayes
from scdr.models.fold_in import Histories
from scdr.models.moments import Array, Wide
from scdr.models.user_profile import UserProfiles


@dataclass(frozen=True)
class ProfileFoldIn:
    """The factor model of a domain as far as a new user needs it; p is d + 1, the bias first.

    Attributes:
        mean: mean rating.
        noise: variance of a rating around its expectation.
        items: float32 `[I, p]`, posterior means.
        counts: int64 `[I]`, ratings of each item.
        item_prior: `[p, p]`, Psi.
        user_prior: `[p, p]`, Sigma.
        rater: `[p, p]`, the mean of `E[phi_u phi_u']` over the users of all ratings.
        user_deviation: `[p]`, what factors are divided by.
        centre: `[d]`, taken off them then.
        profiles: what makes the profile.
    """

    mean: float
    noise: float
    items: Array
    counts: NDArray[np.int64]
    item_prior: Wide
    user_prior: Wide
    rater: Wide
    user_deviation: Wide
    centre: Wide
    profiles: UserProfiles

    @classmethod
    def of(
        cls,
        model: EmpiricalBayes,
        ratings: Interactions,
        profiles: UserProfiles,
        centre: NDArray[np.floating[Any]],
    ) -> ProfileFoldIn:
        """Take over what a fitted model knows.

        Args:
            model: of the source domain.
            ratings: what it was fitted to.
            profiles: of that domain.
            centre: `[d]`, taken off the factors once they are divided by their deviation.
        """
        return cls(
            mean=model.mean,
            noise=model.noise,
            items=np.ascontiguousarray(model.items.mean),
            counts=np.bincount(ratings.items, minlength=ratings.n_items),
            item_prior=model.items.prior.covariance[0],
            user_prior=model.users.prior.covariance[0],
            rater=model.users.second_of_phi(np.bincount(ratings.users, minlength=ratings.n_users)),
            user_deviation=model.users.deviation,
            centre=centre.astype(np.float64),
            profiles=profiles,
        )

    def vectors(self, histories: Histories) -> NDArray[np.float32]:
        """Vectors z, `[K, 7 + d]`."""
        found = [self._vectors(part) for part in histories.parts()]
        width = len(self.profiles.centre) + len(self.centre)
        return np.concatenate([np.zeros((0, width)), *found]).astype(np.float32)

    def _vectors(self, histories: Histories) -> Wide:
        means = self.posterior_means(histories)
        profiles = self.profiles.profiles(
            means[:, 0], histories.users, histories.items, histories.ratings
        )
        factors = means[:, 1:] / self.user_deviation[1:] - self.centre
        return np.concatenate([profiles, factors], axis=1)

    def posterior_means(self, histories: Histories) -> Wide:
        """Bias and factors, `[K, p]`; the prior's, zeros, for a user without a rating."""
        kinds, kind = self._covariances
        known = self.items[histories.items].astype(np.float64)
        covariance = kinds[kind[histories.items]]
        bias, phi = known[:, 0], known.copy()
        phi[:, 0] = 1.0
        second = phi[:, :, None] * phi[:, None, :]
        second[:, 1:, 1:] += covariance[:, 1:, 1:]
        first = (histories.ratings - self.mean - bias)[:, None] * phi
        first[:, 1:] -= covariance[:, 0, 1:]
        precision = np.linalg.inv(self.user_prior) + histories.sums(second) / self.noise
        right = histories.sums(first) / self.noise
        means = np.linalg.solve(precision, right[:, :, None])[:, :, 0]
        return means.astype(np.float64, copy=False)

    @cached_property
    def _covariances(self) -> tuple[Wide, NDArray[np.intp]]:
        """`[C, p, p]` for each number of ratings that an item has, and which an item's is `[I]`."""
        counts, kind = np.unique(self.counts, return_inverse=True)
        precision = np.linalg.inv(self.item_prior) + counts[:, None, None] * self.rater / self.noise
        return np.linalg.inv(precision).astype(np.float64, copy=False), kind

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Values and arrays by name."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {f"profile_{name}": getattr(self.profiles, name) for name in _PROFILE_ARRAYS}
        values = {"mean": self.mean, "noise": self.noise, "extremes": self.profiles.extremes}
        return values, arrays

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The fold-in that `state` describes."""
        mean, noise = values["mean"], values["noise"]
        low, high = values["extremes"]
        profiles = UserProfiles(
            mean=mean,
            noise=noise,
            extremes=(low, high),
            item_bias=arrays["items"][:, 0].astype(np.float64),
            log_count=np.log1p(arrays["counts"]),
            **{name: arrays[f"profile_{name}"] for name in _PROFILE_ARRAYS},
        )
        return cls(
            mean=mean, noise=noise, profiles=profiles, **{name: arrays[name] for name in _ARRAYS}
        )


_ARRAYS = ("items", "counts", "item_prior", "user_prior", "rater", "user_deviation", "centre")
_PROFILE_ARRAYS = ("average", "centre", "deviation")

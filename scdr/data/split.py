"""The cold-start split: test and validation users lose all their target ratings."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdr.data.interactions import Interactions
from scdr.data.scenario import CrossDomain
from scdr.errors import InputError

RULE = (
    "overlap = ids of the overlap users sorted by code point; "
    "perm = numpy.random.default_rng(seed).permutation(len(overlap)); "
    "n_test = floor(beta * len(overlap) + 0.5); test users are overlap[perm[:n_test]], "
    "validation users the next floor(validation_fraction * (len(overlap) - n_test) + 0.5) "
    "of overlap[perm], training users the rest"
)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """All that a method may see: no test user's target rating is in here.

    Attributes:
        source: all rows of the source domain.
        target: target rows of users who are neither test nor validation users, over the full
            vocabularies of the target.
        train_pairs: int32 [T, 2], (source user, target user) of the training users.
        validation_pairs: int32 [V, 2], the same of the validation users.
        validation: target rows of the validation users.
    """

    source: Interactions
    target: Interactions
    train_pairs: NDArray[np.int32]
    validation_pairs: NDArray[np.int32]
    validation: Interactions


@dataclass(frozen=True, slots=True, eq=False)
class ColdStartSplit:
    """A split of one pair of domains by overlap users.

    Attributes:
        domains: the pair that was split.
        training: what a method may see.
        test_pairs: int32 [K, 2], (source user, target user) of the test users.
        test: all target rows of the test users.
        test_rows: int64 [n], where these rows are in ``domains.target``.
        validation_rows: int64 [m], where the rows of ``training.validation`` are in it.
        beta: share of the overlap users who are test users.
        seed: of the random choice of users.
        validation_fraction: share of the other overlap users who are validation users.
    """

    domains: CrossDomain
    training: TrainingData
    test_pairs: NDArray[np.int32]
    test: Interactions
    test_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]
    beta: float
    seed: int
    validation_fraction: float

    def __post_init__(self) -> None:
        """Refuse a split in which a method could see a test user's target rating.

        All training data come from a split, whatever command fits on them.

        Raises:
            RuntimeError: naming how many rows or users leak.
        """
        test, data = self.test_pairs[:, 1], self.training
        cold = np.concatenate([test, data.validation_pairs[:, 1]])
        leaked = int(np.isin(data.target.users, cold).sum())
        if leaked:
            raise RuntimeError(f"{leaked} target training rows belong to test or validation users")
        leaked = int(np.isin(data.validation.users, test).sum())
        if leaked:
            raise RuntimeError(f"{leaked} validation rows belong to test users")
        known = np.concatenate([data.train_pairs[:, 1], data.validation_pairs[:, 1]])
        leaked = int(np.isin(known, test).sum())
        if leaked:
            raise RuntimeError(f"{leaked} test users are training or validation users as well")

    @property
    def n_test_ratings_unseen_item(self) -> int:
        """Test rows whose item has no target training row."""
        target = self.training.target
        seen = np.bincount(target.items, minlength=target.n_items) > 0
        return int((~seen[self.test.items]).sum())

    def manifest(self) -> dict[str, Any]:
        """All that is needed to repeat the split elsewhere and to check that it is the same.

        Each SHA-256 is that of a group's user ids, sorted by code point, joined by newlines and
        encoded as UTF-8.
        """
        ids = self.domains.source.user_ids
        groups = {
            "train": self.training.train_pairs,
            "validation": self.training.validation_pairs,
            "test": self.test_pairs,
        }
        return {
            "seed": self.seed,
            "beta": self.beta,
            "validation_fraction": self.validation_fraction,
            "rule": RULE,
            "overlap_users": len(self.domains.overlap),
            **{f"{name}_users": len(pairs) for name, pairs in groups.items()},
            "train_ratings": len(self.training.target),
            "validation_ratings": len(self.training.validation),
            "test_ratings": len(self.test),
            "test_ratings_unseen_item": self.n_test_ratings_unseen_item,
            "sha256": {name: _hash(ids[pairs[:, 0]]) for name, pairs in groups.items()},
        }


def cold_start_split(
    domains: CrossDomain, *, beta: float = 0.5, seed: int = 0, validation_fraction: float = 0.1
) -> ColdStartSplit:
    """Make a share of the overlap users test users, whose target ratings are held out.

    The rule is ``RULE``, so that the split can be repeated elsewhere from ids and seed alone.

    Args:
        domains: the pair; its overlap is ordered by id.
        beta: share of the overlap users who become test users, in (0, 1).
        seed: not negative.
        validation_fraction: share of the remaining overlap users, in [0, 1).

    Raises:
        InputError: an argument is out of range, or no test or no training user is left.
    """
    if not 0 < beta < 1:
        raise InputError(f"beta {beta} is not between 0 and 1", where="beta", fix="take 0.5")
    if not 0 <= validation_fraction < 1:
        raise InputError(
            f"validation_fraction {validation_fraction} is not in [0, 1)",
            where="validation_fraction",
            fix="take 0.1, or 0 for none",
        )
    if seed < 0:
        raise InputError(f"seed {seed} is negative", where="seed", fix="take 0 or more")
    total = len(domains.overlap)
    n_test = math.floor(beta * total + 0.5)
    n_validation = math.floor(validation_fraction * (total - n_test) + 0.5)
    n_train = total - n_test - n_validation
    if n_test < 1 or n_train < 1:
        raise InputError(
            f"too few overlap users: of {total}, beta {beta} makes {n_test} test, "
            f"{n_validation} validation and {n_train} training users",
            where=domains.name,
            fix="give a pair with more common users, or a smaller beta or validation fraction",
        )
    order = np.random.default_rng(seed).permutation(total)
    test_pairs = domains.overlap[order[:n_test]]
    validation_pairs = domains.overlap[order[n_test : n_test + n_validation]]
    group = np.zeros(domains.target.n_users, dtype=np.int8)
    group[test_pairs[:, 1]] = 1
    group[validation_pairs[:, 1]] = 2
    row_group = group[domains.target.users]
    test_rows, validation_rows = np.flatnonzero(row_group == 1), np.flatnonzero(row_group == 2)
    return ColdStartSplit(
        domains=domains,
        training=TrainingData(
            source=domains.source,
            target=domains.target.take(row_group == 0),
            train_pairs=domains.overlap[order[n_test + n_validation :]],
            validation_pairs=validation_pairs,
            validation=domains.target.take(validation_rows),
        ),
        test_pairs=test_pairs,
        test=domains.target.take(test_rows),
        test_rows=test_rows,
        validation_rows=validation_rows,
        beta=beta,
        seed=seed,
        validation_fraction=validation_fraction,
    )


def source_users(pairs: NDArray[np.int32], rows: Interactions) -> NDArray[np.int32]:
    """Give the source user of each target row.

    Args:
        pairs: int32 [K, 2], (source user, target user).
        rows: target rows of users in ``pairs``.

    Returns:
        int32 [n], indices of source users.

    Raises:
        ValueError: a row's user is not in ``pairs``.
    """
    to_source = np.full(rows.n_users, -1, dtype=np.int32)
    to_source[pairs[:, 1]] = pairs[:, 0]
    sources = to_source[rows.users]
    if (sources < 0).any():
        raise ValueError("a row belongs to a user who is not in the pairs")
    return sources


def _hash(ids: NDArray[np.object_]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()

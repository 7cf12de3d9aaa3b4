from __future__ import annotations

import numpy as np
import pytest

from scdr.data import cold_start_split, cross_domain, from_columns, planted, source_users
from scdr.evaluation import slice_errors


def test_parts_are_disjoint_and_cover_the_test_set() -> None:
    domains = planted(signal=0.5).domains
    thinned = domains.source.take(
        np.random.default_rng(0).random(len(domains.source)) < domains.source.users / 3000
    )
    split = cold_start_split(cross_domain(thinned, domains.target), beta=0.3)
    predictions = np.full(len(split.test), 3.5)
    parts = slice_errors(split, predictions)
    assert len(parts["source_ratings"]) == 4
    error = np.abs(3.5 - split.test.ratings)
    for group in parts.values():
        assert sum(part["ratings"] for part in group.values()) == len(split.test)
        total = sum(part["ratings"] * part["mae"] for part in group.values())
        assert total / len(split.test) == pytest.approx(error.mean())
    assert sum(part["users"] for part in parts["source_ratings"].values()) == len(split.test_pairs)
    active = np.bincount(thinned.users, minlength=thinned.n_users)
    count = active[source_users(split.test_pairs, split.test)]
    for name, part in parts["source_ratings"].items():
        low, high = map(int, name.split(" to "))
        inside = (low <= count) & (count <= high)
        assert part["ratings"] == inside.sum()
        assert part["mae"] == pytest.approx(error[inside].mean())


def test_one_activity_and_unseen_items() -> None:
    users = ["a", "b", "c", "d"]
    source = from_columns(users * 2, ["x"] * 4 + ["y"] * 4, [3] * 8)
    target = from_columns([*users, *users], ["p", "p", "q", "p", *users], [1, 2, 3, 4, 5, 5, 5, 5])
    split = cold_start_split(cross_domain(source, target), beta=0.5, validation_fraction=0)
    parts = slice_errors(split, split.test.ratings + 1)
    assert list(parts["source_ratings"]) == ["2 to 2"]
    # Everyone has an item of their own, so at least the test users' own items are unseen.
    assert parts["item"]["unseen"]["ratings"] >= 2
    assert parts["item"]["unseen"]["mae"] == pytest.approx(1)

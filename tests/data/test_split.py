from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdr.data import (
    CrossDomain,
    cold_start_split,
    cross_domain,
    from_columns,
    planted,
    source_users,
)
from scdr.errors import InputError


def _domains(n_overlap: int, n_source: int = 3, n_target: int = 4) -> CrossDomain:
    """Every user has two target ratings; ids are such that 10 sorts before 9."""
    common = [str(number) for number in range(n_overlap)]
    source = common + [f"s{number}" for number in range(n_source)]
    target = common + [f"t{number}" for number in range(n_target)]
    return cross_domain(
        from_columns(source, ["x"] * len(source), np.ones(len(source))),
        from_columns(
            np.repeat(target, 2).tolist(),
            ["a", "b"] * len(target),
            np.arange(2 * len(target)) % 5 + 1,
        ),
        "little",
    )


@settings(max_examples=60)
@given(
    n=st.integers(6, 40),
    beta=st.floats(0.1, 0.8),
    seed=st.integers(0, 2**32),
    fraction=st.sampled_from([0.0, 0.1, 0.25]),
)
def test_seed_rule_recomputed_from_ids(n: int, beta: float, seed: int, fraction: float) -> None:
    domains = _domains(n)
    split = cold_start_split(domains, beta=beta, seed=seed, validation_fraction=fraction)

    overlap = np.array(sorted(str(number) for number in range(n)), dtype=object)
    perm = np.random.default_rng(seed).permutation(n)
    n_test = floor(beta * n + 0.5)
    n_validation = floor(fraction * (n - n_test) + 0.5)
    test = list(overlap[perm[:n_test]])
    validation = list(overlap[perm[n_test : n_test + n_validation]])
    train = list(overlap[perm[n_test + n_validation :]])

    groups = {
        "test": (split.test_pairs, test),
        "validation": (split.training.validation_pairs, validation),
        "train": (split.training.train_pairs, train),
    }
    for name, (pairs, expected) in groups.items():
        assert list(domains.source.user_ids[pairs[:, 0]]) == expected
        assert list(domains.target.user_ids[pairs[:, 1]]) == expected
        joined = "\n".join(sorted(expected)).encode()
        assert split.manifest()["sha256"][name] == hashlib.sha256(joined).hexdigest()
    assert sorted(test + validation + train) == sorted(overlap)  # disjoint and exhaustive


@given(n=st.integers(6, 40), seed=st.integers(0, 100))
def test_every_target_row_is_in_one_part(n: int, seed: int) -> None:
    domains = _domains(n)
    split = cold_start_split(domains, beta=0.4, seed=seed)
    training = split.training
    in_parts = np.zeros(len(domains.target), dtype=int)
    in_parts[split.test_rows] += 1
    in_parts[split.validation_rows] += 1
    train_users = set(domains.target.user_ids[training.target.users])
    rest = [row for row in range(len(domains.target)) if not in_parts[row]]
    assert {domains.target.user_ids[domains.target.users[row]] for row in rest} == train_users
    assert len(rest) + len(split.test) + len(training.validation) == len(domains.target)
    assert in_parts.max() == 1
    np.testing.assert_array_equal(domains.target.ratings[split.test_rows], split.test.ratings)
    cold = {domains.target.user_ids[user] for user in split.test_pairs[:, 1]}
    assert not cold & train_users
    assert {f"t{number}" for number in range(4)} <= train_users
    assert training.source is domains.source
    assert training.target.n_items == domains.target.n_items


def test_leak_is_refused() -> None:
    split = cold_start_split(_domains(10), beta=0.5)
    leaking = replace(split.training, target=split.domains.target)
    with pytest.raises(RuntimeError, match="12 target training rows"):
        replace(split, training=leaking)
    validating = replace(split.training, validation=split.test)
    with pytest.raises(RuntimeError, match="10 validation rows belong to test users"):
        replace(split, training=validating)
    twice = replace(split.training, train_pairs=split.domains.overlap)
    with pytest.raises(RuntimeError, match="5 test users are training or validation users"):
        replace(split, training=twice)


def test_unseen_items_are_counted() -> None:
    domains = _domains(10)
    target = domains.target
    only = np.flatnonzero(target.user_ids[target.users] == "3")[0]
    items = target.items.copy()
    items[only] = 2
    changed = replace(target, items=items, item_ids=np.array(["a", "b", "c"], dtype=object))
    for seed in range(20):
        split = cold_start_split(cross_domain(domains.source, changed), beta=0.5, seed=seed)
        is_test = "3" in set(changed.user_ids[split.test_pairs[:, 1]])
        assert split.n_test_ratings_unseen_item == int(is_test)


def test_manifest_is_json_and_counts() -> None:
    split = cold_start_split(_domains(20), beta=0.5, seed=3)
    manifest = json.loads(json.dumps(split.manifest()))
    assert manifest["seed"] == 3
    assert [manifest[f"{name}_users"] for name in ("train", "validation", "test")] == [9, 1, 10]
    assert [manifest[f"{name}_ratings"] for name in ("train", "validation", "test")] == [26, 2, 20]
    assert "default_rng(seed).permutation" in manifest["rule"]


def test_source_users_of_rows() -> None:
    split = cold_start_split(_domains(12), beta=0.5)
    sources = source_users(split.test_pairs, split.test)
    domains = split.domains
    assert sources.dtype == np.int32
    np.testing.assert_array_equal(
        domains.source.user_ids[sources], domains.target.user_ids[split.test.users]
    )
    with pytest.raises(ValueError, match="not in the pairs"):
        source_users(split.test_pairs, split.training.target)


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_beta_out_of_range(beta: float) -> None:
    with pytest.raises(InputError, match="is not between 0 and 1"):
        cold_start_split(_domains(10), beta=beta)


@pytest.mark.parametrize(("n", "beta"), [(0, 0.5), (1, 0.5), (3, 0.9), (2, 0.1)])
def test_too_few_overlap_users(n: int, beta: float) -> None:
    with pytest.raises(InputError, match=rf"too few overlap users: of {n}, beta {beta} makes"):
        cold_start_split(_domains(n), beta=beta)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_validation_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(InputError, match="validation_fraction"):
        cold_start_split(_domains(10), validation_fraction=fraction)


def test_negative_seed() -> None:
    with pytest.raises(InputError, match="seed -1 is negative"):
        cold_start_split(_domains(10), seed=-1)


def test_best_rmse_of_the_test_rows() -> None:
    data = planted(source_users=200, overlap_users=100, target_only_users=50, source_items=100,
                   target_items=80)  # fmt: skip
    split = cold_start_split(data.domains, beta=0.5)
    errors = split.test.ratings - data.target_means[split.test_rows]
    assert data.best_rmse(split.test_rows) == pytest.approx(float(np.sqrt((errors**2).mean())))

from __future__ import annotations

import numpy as np
import pytest

from scdr.data import PRESETS, Interactions, deduplicate, k_core, planted, preset, statistics
from scdr.data.presets import degrees
from scdr.data.synthetic import Planted
from scdr.errors import InputError


def _same(first: Interactions, second: Interactions) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("users", "items", "ratings", "times", "user_ids", "item_ids")
    )


def test_planted_has_the_documented_shape() -> None:
    data = planted(signal=0.8, seed=1)
    figures = statistics(data.domains)
    assert (figures.source.users, figures.source.items, figures.source.ratings) == (
        3000,
        1500,
        180_000,
    )
    assert (figures.target.users, figures.target.items, figures.target.ratings) == (
        3000,
        1000,
        90_000,
    )
    assert figures.overlap_users == 1500
    assert set(np.unique(data.domains.target.ratings)) == {1, 2, 3, 4, 5}
    assert data.target_means.shape == (90_000,)
    assert _same(k_core(deduplicate(data.domains.target)), data.domains.target)


# the published best RMSE of the three signals, to the spread between draws
@pytest.mark.parametrize(("signal", "best"), [(0.4, 0.639), (0.6, 0.627), (0.8, 0.616)])
def test_best_rmse_is_the_known_one(signal: float, best: float) -> None:
    data = planted(signal=signal)
    assert data.best_rmse() == pytest.approx(best, abs=0.006)
    ratings, means = data.domains.target.ratings, data.target_means
    for other in (means + 0.1, means - 0.1, 0.9 * means + 0.1 * means.mean()):
        assert np.sqrt(np.mean((ratings - other) ** 2)) > data.best_rmse()


def _user_directions(domain: Interactions, users: np.ndarray, rank: int) -> np.ndarray:
    """Orthonormal basis of what the users' residuals vary along."""
    matrix = np.zeros((domain.n_users, domain.n_items))
    matrix[domain.users, domain.items] = domain.ratings
    seen = matrix > 0
    matrix -= matrix.sum(1, keepdims=True) / seen.sum(1, keepdims=True)
    matrix *= seen
    matrix -= matrix.sum(0) / seen.sum(0)
    return np.linalg.svd((matrix * seen)[users], full_matrices=False)[0][:, :rank]


@pytest.mark.parametrize("related", [True, False])
def test_taste_is_shared_only_where_related(related: bool) -> None:
    data = planted(
        source_users=300, overlap_users=300, target_only_users=0, source_items=150,
        target_items=150, source_ratings_per_user=120, target_ratings_per_user=120,
        signal=0.8, related=related,
    )  # fmt: skip
    overlap = data.domains.overlap
    source = _user_directions(data.domains.source, overlap[:, 0], 5)
    target = _user_directions(data.domains.target, overlap[:, 1], 5)
    canonical = np.linalg.svd(source.T @ target, compute_uv=False)  # correlations
    if related:
        assert canonical.min() > 0.8
    else:
        assert canonical.max() < 0.4


MAKERS = (
    lambda seed: planted(seed=seed, source_users=1500),
    lambda seed: preset("movies-music", scale=0.01, seed=seed),
)


@pytest.mark.parametrize("make", MAKERS)
def test_a_seed_repeats(make: object) -> None:
    first, again, other = (make(seed) for seed in (3, 3, 4))  # type: ignore[operator]
    assert isinstance(first, Planted)
    assert _same(first.domains.source, again.domains.source)
    assert _same(first.domains.target, again.domains.target)
    np.testing.assert_array_equal(first.target_means, again.target_means)
    assert not _same(first.domains.target, other.domains.target)


def test_means_stay_with_their_rows_through_the_core() -> None:
    # ten ratings an item: some items have fewer than five, and their rows go
    data = planted(source_users=400, overlap_users=300, target_only_users=100, source_items=60,
                   target_items=400, source_ratings_per_user=20, target_ratings_per_user=10,
                   signal=0.8)  # fmt: skip
    assert 3000 < len(data.domains.target) < 400 * 10
    errors = data.domains.target.ratings - data.target_means
    assert np.sqrt(np.mean(errors**2)) < 0.7
    assert data.best_rmse(np.arange(10)) == pytest.approx(np.sqrt(np.mean(errors[:10] ** 2)))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("scale", [0.01, 0.05])
def test_preset_counts_are_exact_after_cleaning(name: str, scale: float) -> None:
    data = preset(name, scale=scale).domains
    for domain, shape in zip((data.source, data.target), PRESETS[name][:2], strict=True):
        cleaned = k_core(deduplicate(domain))
        assert _same(cleaned, domain)
        assert cleaned.n_users == round(scale * shape.users)
        assert cleaned.n_items == round(scale * shape.items)
        assert len(cleaned) == round(scale * shape.ratings)
        assert list(domain.user_ids) == sorted(set(domain.user_ids))
        assert list(domain.item_ids) == sorted(set(domain.item_ids))
        for counts in (np.bincount(domain.users), np.bincount(domain.items)):
            top_tenth = np.sort(counts)[-len(counts) // 10 :].sum() / counts.sum()
            assert top_tenth > 0.3  # a tenth of an even distribution
    assert len(data.overlap) == round(scale * PRESETS[name][2])


def test_table_iii_ratios_as_printed() -> None:
    printed = {"movies-music": "9.95", "books-movies": "5.42", "books-music": "2.53"}
    for name, (source, target, overlap) in PRESETS.items():
        ratio = 100 * overlap / (source.users + target.users - overlap)
        assert f"{ratio:.2f}" == printed[name]


def test_degrees_hand_out_everything() -> None:
    rng = np.random.default_rng(0)
    for n, total, cap in ((1, 5, 5), (10, 50, 5), (10, 97, 10), (1000, 20_000, 300)):
        counts = degrees(n, total, 1.2, cap, rng)
        assert counts.sum() == total
        assert counts.min() >= 5
        assert counts.max() <= cap


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "movies"}, "unknown preset 'movies'"),
        ({"name": "movies-music", "scale": 0}, r"scale 0 is not in \(0, 1\]"),
        ({"name": "movies-music", "scale": 1.5}, r"scale 1.5 is not in \(0, 1\]"),
        ({"name": "movies-music", "scale": 0.0003}, "scale 0.0003 leaves 37 users and 15 items"),
    ],
)
def test_bad_presets(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        preset(**arguments)  # type: ignore[arg-type]


def test_bad_planted_sizes() -> None:
    with pytest.raises(InputError, match="10 overlap users among 5"):
        planted(source_users=5, overlap_users=10)
    with pytest.raises(InputError, match="60 ratings of a user over 50 items"):
        planted(source_items=50)
    with pytest.raises(InputError, match="the 5-core removes all"):
        planted(target_ratings_per_user=4)

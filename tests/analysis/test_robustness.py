from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from scdr.analysis import RatingErrors, RobustError, robustness, surrogate_errors, violations
from scdr.analysis.attacks import fgsm, nes, pgd, random_search, transfer
from scdr.methods import FactorPredictor


def rows_of(found: list[RobustError], attack: str) -> dict[float, float]:
    return {row.level: row.mae for row in found if row.attack == attack}


def test_a_linear_map_in_closed_form(linear: Any) -> None:
    """Within +-eps the error rises by `eps ||c||_1`, in an l2 ball by its radius times `||c||`."""
    found = robustness(linear.errors, levels=(0, 0.25, 1), queries=(25, 60))
    error = np.abs(linear.error)
    for attack in ("fgsm", "pgd_linf", "pgd_l2"):
        for eps, mae in rows_of(found, attack).items():
            if attack == "pgd_l2":
                rise = eps * math.sqrt(6) * np.linalg.norm(linear.direction, axis=1)
            else:
                rise = eps * np.abs(linear.direction).sum(1)
            assert mae == pytest.approx((error + rise).mean(), rel=1e-5), (attack, eps)
    assert violations(found) == []
    rmse = next(row.rmse for row in found if row.attack == "fgsm" and row.level == 1)
    worst = error + np.abs(linear.direction).sum(1)
    assert rmse == pytest.approx(math.sqrt((worst**2).mean()), rel=1e-5)


def test_random_search_finds_the_worst_corner_of_a_linear_map(
    predictor_of: Callable[..., FactorPredictor], ratings_of: Callable[..., RatingErrors]
) -> None:
    # An error far from 0 has one sign at all corners: each coordinate need be turned just once.
    predictor = predictor_of(None, width=6, target_width=6)
    errors = ratings_of(predictor)
    errors = replace(errors, residuals=errors.residuals + 100)
    best = fgsm(errors, 0.5)
    early, last = random_search(errors, 0.5, queries=(3, 7), seed=0)
    torch.testing.assert_close(last, best)
    assert not torch.equal(early, best)


def test_nes_follows_the_gradient_of_a_linear_map(
    predictor_of: Callable[..., FactorPredictor], ratings_of: Callable[..., RatingErrors]
) -> None:
    errors = ratings_of(predictor_of(None, width=6, target_width=6))
    errors = replace(errors, residuals=errors.residuals + 100)
    small, large = nes(errors, 0.5, queries=(20, 2100), seed=0, samples=50)
    assert not small.any()
    worst = errors.at(errors.vectors + fgsm(errors, 0.5)).abs()
    reached = errors.at(errors.vectors + large).abs()
    assert (reached <= worst * (1 + 1e-6)).all()
    gained = (reached - errors.at(errors.vectors).abs()).sum()
    assert gained > 0.95 * (worst - errors.at(errors.vectors).abs()).sum()


@pytest.mark.parametrize("relative", [False, True])
def test_order_of_attacks_on_a_network(
    tanh_network: FactorPredictor, relative: bool, ratings_of: Callable[..., RatingErrors]
) -> None:
    errors = ratings_of(tanh_network)
    torch.manual_seed(5)
    other = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 4)).requires_grad_(False)
    surrogate = surrogate_errors(ratings_of(replace(tanh_network, mapping=other)), errors)
    found = robustness(errors, surrogate=surrogate, relative=relative)
    by_level = {
        level: {(row.attack, row.queries): row.mae for row in found if row.level == level}
        for level in {row.level for row in found}
    }
    for level, mae in by_level.items():
        for strong in ("pgd_linf", "pgd_l2"):
            for (attack, queries), weaker in mae.items():
                if not attack.startswith("pgd"):
                    assert mae[(strong, None)] >= weaker * (1 - 1e-6), (level, attack, queries)
        assert mae[("random_search", 100)] >= mae[("random_search", 25)]
        assert mae[("nes", 100)] >= mae[("nes", 25)]
    assert len({tuple(mae) for mae in by_level.values()}) == 1
    for attack in ("pgd_linf", "pgd_l2"):
        grown = list(rows_of(found, attack).values())
        assert grown == sorted(grown)
    assert {row.eps for row in found} == {
        level * (errors.coordinate_rms() if relative else 1.0) for level in by_level
    }


def test_perturbations_stay_in_their_ball(
    tanh_network: FactorPredictor, ratings_of: Callable[..., RatingErrors]
) -> None:
    errors = ratings_of(tanh_network)
    start = fgsm(errors, 0.3)
    for delta in (
        start,
        pgd(errors, 0.3, norm="linf", start=start),
        transfer(errors, 0.3),
        *random_search(errors, 0.3, queries=(40,), seed=0),
        *nes(errors, 0.3, queries=(63,), seed=0),
    ):
        assert delta.abs().max() <= 0.3 * (1 + 1e-6)
        assert delta.any()
    assert pgd(errors, 0.3, norm="l2").norm(dim=1).max() <= 0.3 * (1 + 1e-6)


def test_pgd_is_never_weaker_than_its_start_for_any_rating(
    tanh_network: FactorPredictor, ratings_of: Callable[..., RatingErrors]
) -> None:
    errors = ratings_of(tanh_network)
    start = fgsm(errors, 0.7)
    at_start = errors.at(errors.vectors + start).abs()
    found = errors.at(errors.vectors + pgd(errors, 0.7, norm="linf", start=start)).abs()
    assert (found >= at_start).all()
    assert (found > at_start).any()


def test_one_seed_gives_the_same_bits_at_any_number_of_threads(
    tanh_network: FactorPredictor, ratings_of: Callable[..., RatingErrors]
) -> None:
    errors = ratings_of(tanh_network)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(robustness(errors, levels=(0.5,), surrogate=errors, seed=1))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_a_relative_eps_does_not_depend_on_the_scale_of_the_vectors(
    predictor_of: Callable[..., FactorPredictor], ratings_of: Callable[..., RatingErrors]
) -> None:
    predictor = predictor_of(None, width=6, target_width=6)
    scaled = FactorPredictor(
        8 * predictor.source_vectors,
        None,
        replace(predictor.items, vectors=predictor.items.vectors / 8),
    )
    results = [
        robustness(ratings_of(one), levels=(0.5,), relative=True, queries=(10,))
        for one in (predictor, scaled)
    ]
    for one, other in zip(*results, strict=True):
        assert one.mae == pytest.approx(other.mae, rel=1e-5)
        assert other.eps == pytest.approx(8 * one.eps)


def test_a_surrogate_in_other_coordinates_is_read_through_an_affine_map(
    predictor_of: Callable[..., FactorPredictor], ratings_of: Callable[..., RatingErrors]
) -> None:
    """The same model with its source space turned and shifted attacks as well as the model."""
    predictor = predictor_of(None, width=6, target_width=6)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3))).Q
    back = nn.Linear(6, 6)
    back.weight.data, back.bias.data = turn, -turn @ torch.ones(6)
    turned = FactorPredictor(
        predictor.source_vectors @ turn + 1, back.requires_grad_(False), predictor.items
    )
    errors = ratings_of(predictor)
    surrogate = surrogate_errors(ratings_of(turned), errors)
    torch.testing.assert_close(
        surrogate.at(errors.vectors), errors.at(errors.vectors), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(transfer(surrogate, 0.5), fgsm(errors, 0.5))
    with pytest.raises(ValueError, match=r"^surrogate has other ratings"):
        surrogate_errors(ratings_of(turned, n=10), errors)


def test_violations_are_named() -> None:
    found = [
        RobustError("fgsm", None, 0.5, 1.0, 1.3, 2.0),
        RobustError("pgd_linf", None, 0.5, 1.0, 1.2, 2.0),
        RobustError("nes", 100, 0.5, 1.0, 1.25, 2.0),
        RobustError("fgsm", None, 1.0, 1.0, 1.1, 2.0),
        RobustError("pgd_linf", None, 1.0, 1.0, 1.4, 2.0),
        RobustError("nes", 100, 1.0, 1.0, 1.1, 2.0),
    ]
    assert violations(found) == [
        "at eps 0.5 pgd_linf (MAE 1.2000) is weaker than fgsm (1.3000)",
        "at eps 0.5 pgd_linf (MAE 1.2000) is weaker than nes with 100 queries (1.2500)",
        "fgsm: MAE falls from 1.3000 at eps 0.5 to 1.1000 at 1",
        "nes with 100 queries: MAE falls from 1.2500 at eps 0.5 to 1.1000 at 1",
    ]


def test_wrong_arguments_are_named(
    predictor_of: Callable[..., FactorPredictor], ratings_of: Callable[..., RatingErrors]
) -> None:
    errors = ratings_of(predictor_of(None, width=6, target_width=6))
    for match, call in (
        ("^levels is", lambda: robustness(errors, levels=(0.5, 0.25))),
        ("^eps is -1", lambda: robustness(errors, levels=(-1,))),
        ("^queries is", lambda: robustness(errors, levels=(0.5,), queries=(0,))),
        (
            "^surrogate is at other",
            lambda: robustness(
                errors, surrogate=ratings_of(predictor_of(None, width=6, target_width=6), n=10)
            ),
        ),
        ("^radius is nan", lambda: pgd(errors, math.nan, norm="l2")),
        ("^norm is 'l1'", lambda: pgd(errors, 1.0, norm="l1")),  # type: ignore[arg-type]
        ("^steps is 0", lambda: pgd(errors, 1.0, norm="l2", steps=0)),
        ("^start is", lambda: pgd(errors, 1.0, norm="l2", start=errors.vectors[:2])),
        ("^samples is 0", lambda: nes(errors, 1.0, queries=(5,), seed=0, samples=0)),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_random_starts_find_more_than_one_start(
    tanh_network: FactorPredictor, ratings_of: Callable[..., RatingErrors]
) -> None:
    errors = ratings_of(tanh_network)
    reached = [
        errors.at(errors.vectors + pgd(errors, 1.0, norm="l2", starts=starts)).abs()
        for starts in (1, 4)
    ]
    assert (reached[1] >= reached[0]).all()
    assert reached[1].sum() > reached[0].sum()

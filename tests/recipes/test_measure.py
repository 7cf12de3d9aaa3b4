"""What is measured on a linear map, against what it comes to in closed form, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from scdr.data import ColdStartSplit, cold_start_split, planted, source_users
from scdr.methods import FactorPredictor
from scdr.methods.sscdr import SSCDR
from scdr.models import TargetItems
from scdr.recipes import measure
from scdr.recipes.measure import KINDS, Options, Outcome, Rows, Task
from scdr.recipes.models import FittedModel, Subject

WIDTH = 6


@dataclass(frozen=True)
class Linear:
    """A linear map on a planted split, all in float64 numpy.

    Attributes:
        error: `[n]`, `offset + <W u, v> - r`.
        direction: `[n, d]`, `W' v`: what a perturbation of the vector is multiplied with.
    """

    rows: Rows
    vectors: np.ndarray
    weight: np.ndarray
    error: np.ndarray
    direction: np.ndarray


@pytest.fixture(scope="module")
def split() -> ColdStartSplit:
    made = planted(
        source_users=60,
        overlap_users=50,
        target_only_users=10,
        source_items=30,
        target_items=20,
        source_ratings_per_user=12,
        target_ratings_per_user=8,
        signal=0.8,
        seed=1,
    )
    return cold_start_split(made.domains, beta=0.5, seed=2)


def measured(
    split: ColdStartSplit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> Linear:
    torch.manual_seed(0)
    mapping = nn.Linear(WIDTH, WIDTH, bias=False).requires_grad_(False)
    items = split.training.target.n_items
    predictor = FactorPredictor(
        torch.randn(split.training.source.n_users, WIDTH),
        mapping,
        TargetItems(
            torch.randn(items + 1, WIDTH), 3 + torch.randn(items + 1), torch.ones(items + 1)
        ),
    )
    model = FittedModel(predictor, split, SSCDR.presets["paper"], False, torch.device("cpu"))
    monkeypatch.setattr(measure, "fitted", lambda subject, cache: model)
    subject = Subject(
        pair="planted",
        beta=0.5,
        seed=2,
        method="sscdr",
        preset="paper",
        label="SSCDR",
        k=None,
        rho=None,
        source=tmp_path,
        digest="",
    )
    outcome: Outcome = measure.measure(
        Task(
            subject=subject,
            kinds=(kind,),
            options=Options(rows=10_000, grid=5, steps=5, radii=(1.0,)),
            threads=1,
            cache=tmp_path,
            cache_limit=10**6,
        )
    )
    assert outcome.error is None, outcome.trace
    users = source_users(split.test_pairs, split.test)
    vectors = predictor.source_vectors.double().numpy()
    weight = mapping.weight.double().numpy()
    item = predictor.items.vectors.double().numpy()[split.test.items]
    offset = predictor.items.offsets.double().numpy()[split.test.items]
    direction = item @ weight
    return Linear(
        rows=outcome.rows[kind],
        vectors=vectors[users],
        weight=weight,
        error=offset + (vectors[users] * direction).sum(1) - split.test.ratings,
        direction=direction,
    )


def test_performance(
    split: ColdStartSplit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    linear = measured(split, monkeypatch, tmp_path, "performance")
    (row,) = linear.rows
    assert row["mae"] == pytest.approx(np.abs(linear.error).mean(), rel=1e-5)
    assert row["rmse"] == pytest.approx(np.sqrt((linear.error**2).mean()), rel=1e-5)


def test_fgsm_at_absolute_and_relative_eps(
    split: ColdStartSplit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    linear = measured(split, monkeypatch, tmp_path, "fgsm")
    # Each test user counts once in the RMS.
    rms = np.sqrt((np.unique(linear.vectors, axis=0) ** 2).mean())
    assert {round(row["scale"], 5) for row in linear.rows} == {1.0, round(float(rms), 5)}
    for row in linear.rows:
        reach = row["level"] * row["scale"] * np.abs(linear.direction).sum(1)
        assert row["mae"] == pytest.approx((np.abs(linear.error) + reach).mean(), rel=1e-5)


def test_flatness_and_sharpness(
    split: ColdStartSplit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    linear = measured(split, monkeypatch, tmp_path, "flatness")
    assert [row["probe"] for row in linear.rows] == ["absolute", "relative"]
    bound = np.linalg.norm(linear.weight, 2)
    for row in linear.rows:
        assert row["spectral_bound"] == pytest.approx(bound, rel=1e-5)
        assert row["lipschitz_mean"] <= row["lipschitz_max"] <= bound * (1 + 1e-6)
        worst = np.abs(linear.error) + row["probe_rho"] * np.linalg.norm(linear.direction, axis=1)
        sharpness = (worst**2).mean() - (linear.error**2).mean()
        assert row["sharpness"] == pytest.approx(sharpness, rel=1e-4)
    rms = np.sqrt((np.unique(linear.vectors, axis=0) ** 2).mean())
    length = measure.RELATIVE_RADIUS * rms * np.sqrt(WIDTH)
    assert linear.rows[1]["probe_rho"] == pytest.approx(length, rel=1e-5)


def test_landscape(split: ColdStartSplit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    linear = measured(split, monkeypatch, tmp_path, "landscape")
    (row,) = linear.rows
    drawn = np.random.default_rng(2).standard_normal((2, WIDTH))  # the subject's seed
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    length = np.linalg.norm(linear.vectors, axis=1)
    for i, zeta in enumerate(np.linspace(-1, 1, 5)):
        for j, gamma in enumerate(np.linspace(-1, 1, 5)):
            moved = linear.error + length * (
                linear.direction @ (zeta * drawn[0] + gamma * drawn[1])
            )
            assert row["mae"][i][j] == pytest.approx(np.abs(moved).mean(), rel=1e-5)


def test_white_box_attacks_dominate_on_a_linear_map(
    split: ColdStartSplit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    linear = measured(split, monkeypatch, tmp_path, "attacks")
    mae = {(r["attack"], r["queries"], r["scale"], r["level"]): r["mae"] for r in linear.rows}
    for (attack, _, scale, level), value in mae.items():
        assert mae["pgd_linf", None, scale, level] >= mae["fgsm", None, scale, level]
        if attack in ("transfer", "random_search", "nes"):
            assert value <= mae["fgsm", None, scale, level] * (1 + 1e-6)
        assert value >= mae[attack, _, scale, 0.0]
    assert {attack for attack, *_ in mae} == {
        *("fgsm", "pgd_linf", "pgd_l2", "transfer", "random_search", "nes")
    }


def test_changed_ratings_are_left_out_where_users_cannot_be_folded_in(
    split: ColdStartSplit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # These vectors are drawn, not those of the pretraining that the hyper-parameters name.
    assert measured(split, monkeypatch, tmp_path, "changed_ratings").rows == []


def test_kinds_are_those_that_recipes_ask_for() -> None:
    from scdr.recipes.catalogue import RECIPES

    assert {recipe.kind for recipe in RECIPES.values()} == set(KINDS)

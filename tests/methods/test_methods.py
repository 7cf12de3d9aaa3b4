"""What the methods must find in data whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from scdr.data import ColdStartSplit, cold_start_split, planted, source_users
from scdr.evaluation import rating_metrics
from scdr.methods import CONTROLS, METHODS, FitContext, pretraining
from scdr.models import PretrainConfig


@pytest.fixture(scope="module")
def taste() -> tuple[ColdStartSplit, float]:
    made = planted(signal=0.8)
    split = cold_start_split(made.domains, beta=0.5)
    return split, made.best_rmse(split.test_rows)


def rmse(name: str, split: ColdStartSplit) -> float:
    method = {**METHODS, **CONTROLS}[name]
    predictor = method.fit(split.training, method.presets["default"], FitContext(threads=2))
    users = source_users(split.test_pairs, split.test)
    predictions = predictor.predict(users, split.test.items).clip(1, 5)
    return rating_metrics(split.test.users, split.test.ratings, predictions, resamples=2).rmse


@pytest.mark.parametrize("name", ["scdr", "scdr_minus", "task_mapping"])
def test_a_mapping_carries_planted_taste(name: str, taste: tuple[ColdStartSplit, float]) -> None:
    split, best = taste
    control = rmse("bias_transfer", split)
    assert (control - rmse(name, split)) / (control - best) > 1 / 3


def test_ablations_are_scdr_with_k_zero() -> None:
    for preset in ("default", "paper"):
        scdr = METHODS["scdr"].presets[preset]
        no_smf = replace(scdr, pretrain=replace(scdr.pretrain, steps=0))
        assert METHODS["scdr_minus"].presets[preset] == no_smf
        plain = replace(no_smf, mapping=replace(scdr.mapping, steps=0))
        assert METHODS["task_mapping"].presets[preset] == plain


def test_a_target_only_method_learns_nothing_of_a_cold_user(
    taste: tuple[ColdStartSplit, float],
) -> None:
    split, _ = taste
    predictor = METHODS["tgt"].fit(
        split.training, METHODS["tgt"].presets["default"], FitContext(seed=3)
    )
    own = predictor.source_vectors[:, :10].numpy()
    assert np.abs(own.mean(0)).max() < 0.01
    assert own.std() == pytest.approx(0.1, rel=0.02)


def test_domains_that_are_trained_side_by_side_share_the_threads(
    taste: tuple[ColdStartSplit, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads_inside(*_: object) -> torch.Tensor:
        return torch.tensor(torch.get_num_threads())

    monkeypatch.setattr(pretraining, "pretrain_domain", threads_inside)
    before = torch.get_num_threads()
    for threads, inside in ((1, 1), (2, 1), (4, 2)):
        context = FitContext(threads=threads)
        both = pretraining.pretrain_domains(taste[0].training, PretrainConfig(), context)
        assert both == (inside, inside)
    assert torch.get_num_threads() == before

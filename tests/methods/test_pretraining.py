from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from scdr.data import Interactions, TrainingData, cold_start_split, planted
from scdr.methods import FitContext
from scdr.methods.pretraining import pretrain_domains
from scdr.models import Factors, PretrainConfig


class Elsewhere(Factors):
    """Factors that say where they were moved to instead of being moved."""

    def to(self, device: torch.device) -> Any:
        return device


class Asked:
    """Notes on which device each domain's factors are asked for."""

    def __init__(self) -> None:
        self.devices: dict[int, torch.device] = {}

    def get_or_train(
        self,
        interactions: Interactions,
        config: PretrainConfig,
        *,
        seed: tuple[int, ...],
        device: torch.device,
        train: Callable[[], Factors],
    ) -> Factors:
        self.devices[seed[-1]] = device
        return Elsewhere(torch.zeros(1, 1), torch.zeros(1, 1))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    made = planted(
        source_users=60,
        overlap_users=40,
        target_only_users=20,
        source_items=30,
        target_items=30,
        source_ratings_per_user=10,
        target_ratings_per_user=10,
        core=0,
    )
    return cold_start_split(made.domains).training


@pytest.mark.parametrize(
    ("device", "gpus", "source", "target"),
    [
        ("cpu", 2, "cpu", "cpu"),
        ("cuda", 1, "cuda", "cuda"),
        ("cuda", 2, "cuda:0", "cuda:1"),
        ("cuda:1", 2, "cuda:1", "cuda:0"),
        ("cuda:1", 4, "cuda:1", "cuda:2"),
    ],
)
def test_each_domain_has_a_gpu_of_its_own_where_there_are_two(
    device: str,
    gpus: int,
    source: str,
    target: str,
    data: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    asked = Asked()
    context = FitContext(device=torch.device(device), threads=2, pretrained=asked)
    _, left = pretrain_domains(data, PretrainConfig(epochs=1), context)
    assert asked.devices == {0: torch.device(source), 1: torch.device(target)}
    assert left == torch.device(device)


def test_side_by_side_is_the_same_as_one_after_the_other(data: TrainingData) -> None:
    config = PretrainConfig(epochs=3)
    found = [pretrain_domains(data, config, FitContext(threads=threads)) for threads in (1, 2)]
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one.user, two.user)
        np.testing.assert_array_equal(one.item, two.item)

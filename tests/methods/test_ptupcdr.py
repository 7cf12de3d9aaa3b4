from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scdr.data import ColdStartSplit, from_columns
from scdr.methods import FactorPredictor
from scdr.models import TargetItems
from scdr.models.personal import PersonalMapping, liked_history

HISTORY = torch.tensor([[2, 0, 3], [1, -1, -1], [-1, -1, -1], [0, 0, 1]], dtype=torch.int32)


@pytest.fixture
def mapping() -> PersonalMapping:
    generator = torch.Generator().manual_seed(0)
    made = PersonalMapping(
        torch.randn(4, 3, generator=generator),
        HISTORY,
        source_width=2,
        target_width=3,
        hidden=5,
        generator=generator,
    )
    return made.requires_grad_(False)


def bridge_by_hand(mapping: PersonalMapping, items: list[int]) -> np.ndarray:
    """The equations of the method, one item at a time in float64."""
    weights = {name: value.double().numpy() for name, value in mapping.state_dict().items()}
    vectors = [weights["item_vectors"][item] for item in items]
    scores = [
        weights["attention.2.weight"][0]
        @ np.maximum(weights["attention.0.weight"] @ v + weights["attention.0.bias"], 0)
        for v in vectors
    ]
    total = sum(np.exp(score) for score in scores)
    characteristic = sum(
        (np.exp(s) / total * v for s, v in zip(scores, vectors, strict=True)), np.zeros(3)
    )
    hidden = weights["decoder.0.weight"] @ characteristic + weights["decoder.0.bias"]
    decoded = weights["decoder.2.weight"] @ np.maximum(hidden, 0) + weights["decoder.2.bias"]
    return decoded.reshape(2, 3)


@pytest.mark.parametrize("user", range(4))
def test_each_users_bridge(mapping: PersonalMapping, user: int) -> None:
    items = [item for item in HISTORY[user].tolist() if item >= 0]
    expected = bridge_by_hand(mapping, items)
    np.testing.assert_allclose(mapping.bridges(HISTORY[user : user + 1])[0], expected, rtol=1e-5)
    vector = torch.tensor([[0.5, -2.0]])
    mapped = mapping(vector, torch.tensor([user]))
    np.testing.assert_allclose(mapped[0], vector[0].numpy() @ expected, rtol=1e-5, atol=1e-6)


def test_padding_gets_no_attention(mapping: PersonalMapping) -> None:
    longer = torch.full((4, 20), -1, dtype=torch.int32)
    longer[:, 5:8] = HISTORY
    torch.testing.assert_close(mapping.bridges(longer), mapping.bridges(HISTORY))


def test_trains_with_a_user_who_liked_nothing(mapping: PersonalMapping) -> None:
    mapping.requires_grad_(True)
    mapping.bridges(HISTORY).square().sum().backward()
    for parameter in mapping.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_a_perturbed_vector_goes_through_the_same_bridge(mapping: PersonalMapping) -> None:
    vectors = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    items = TargetItems(torch.randn(2, 3), torch.zeros(2), torch.zeros(2))
    predictor = FactorPredictor(vectors, mapping, items)
    users = torch.tensor([3, 1])
    delta = torch.tensor([[0.1, -0.2], [0.3, 0.4]], requires_grad=True)
    moved = predictor.map_vectors(vectors[users] + delta, users)
    bridges = mapping.bridges(HISTORY[users])
    torch.testing.assert_close(moved, torch.einsum("ks,kst->kt", vectors[users] + delta, bridges))
    moved.sum().backward()
    torch.testing.assert_close(delta.grad, bridges.sum(2))


def test_many_users_at_once_are_the_same_users(
    mapping: PersonalMapping, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = torch.arange(4).repeat(3)
    vectors = torch.randn(12, 2)
    together = mapping(vectors, users)
    monkeypatch.setattr("scdr.models.personal._USERS_AT_ONCE", 5)
    torch.testing.assert_close(mapping(vectors, users), together)


def test_a_saved_model_bridges_a_history_it_has_not_seen(
    mapping: PersonalMapping, split: ColdStartSplit, tmp_path: Path
) -> None:
    items = TargetItems(torch.randn(2, 3), torch.zeros(2), torch.zeros(2))
    path = tmp_path / "model.safetensors"
    predictor = FactorPredictor(torch.randn(4, 2), mapping, items)
    predictor.save(path, domains=split.domains, metadata={})
    loaded = FactorPredictor.load(path).predictor.mapping
    assert isinstance(loaded, PersonalMapping)
    history = torch.tensor([[3, 1]], dtype=torch.int32)
    assert torch.equal(loaded.bridges(history), mapping.bridges(history))


def test_the_history_is_the_last_liked_items() -> None:
    rows = [
        ("b", "x", 4), ("a", "x", 5), ("b", "y", 3), ("b", "z", 5), ("c", "y", 1), ("b", "w", 3.5),
        ("a", "w", 2), ("b", "v", 5),
    ]  # fmt: skip
    users, names, ratings = zip(*rows, strict=True)
    data = from_columns(users, names, ratings)
    index = {name: k for k, name in enumerate(data.item_ids)}
    history = liked_history(data, length=3, liked_above=3.0)
    assert history.tolist() == [
        [index["x"], -1, -1],
        [index["z"], index["w"], index["v"]],
        [-1, -1, -1],
    ]
    assert liked_history(data, length=5, liked_above=3.0)[1].tolist() == [
        *(index[name] for name in "xzwv"),
        -1,
    ]

from __future__ import annotations

import numpy as np
import pytest
import torch

from scdr.data import from_columns
from scdr.methods.sscdr import ItemSampler, SemiSupervisedConfig, sscdr_losses


def test_the_loss_by_hand() -> None:
    mapped = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    user = torch.tensor([[0.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    rated = torch.tensor([[2.0, 0.0], [0.0, 2.0], [5.0, 5.0]])
    other = torch.tensor([[1.0, 1.0], [3.0, 2.0], [0.0, 0.0]])
    has_other = torch.tensor([True, True, False])
    config = SemiSupervisedConfig(margin=1.0, item_weight=0.5)
    losses = sscdr_losses(mapped, user, rated, other, has_other=has_other, config=config)
    # User 0: 1 + 0.5 max(0, 1 + 4 - 2). User 1: 4 + 0.5 max(0, 1 + 0 - 9). User 2: 2 alone.
    assert losses.tolist() == pytest.approx([1 + 0.5 * 3, 4, 2])


RATED = {"a": [0, 3, 4], "b": [0, 1, 2, 4, 5, 6], "c": [0, 1, 2, 3, 4, 5, 6], "d": [6]}


def test_a_rated_item_is_rated_and_another_never_is() -> None:
    """Of the three users asked about, b rated all items but one and c every one."""
    pairs = [(user, item) for user, items in RATED.items() for item in items]
    pairs += pairs[:4]  # a rating that occurs twice counts once
    pairs = [pairs[k] for k in np.random.default_rng(0).permutation(len(pairs))]
    data = from_columns([u for u, _ in pairs], [f"{i}" for _, i in pairs], [3] * len(pairs))
    sampler = ItemSampler(data, np.array([2, 0, 1], dtype=np.int32))
    generator = np.random.default_rng(1)
    draws = 4000
    drawn = [sampler.draw(generator) for _ in range(draws)]
    rated, other = (np.stack(column) for column in zip(*drawn, strict=True))
    for place, user in enumerate("cab"):
        own = set(RATED[user])
        assert set(rated[:, place]) == own
        assert set(other[:, place]) == (set(range(7)) - own or {-1})
        for items, choices in ((rated, len(own)), (other, max(7 - len(own), 1))):
            count = np.unique(items[:, place], return_counts=True)[1]
            fair = draws / choices
            assert np.abs(count - fair).max() <= 5 * np.sqrt(fair)  # five standard deviations

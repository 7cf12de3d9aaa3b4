from __future__ import annotations

import math

import pytest
import torch

from scdr.methods.clcdr import ContrastiveConfig, item_contrast, user_contrast

CONFIG = ContrastiveConfig(temperature=0.5)


def similarity(first: list[float], second: list[float]) -> float:
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    return math.exp(dot / math.hypot(*first) / math.hypot(*second) / 0.5)


MAPPED = [[1.0, 0.0], [1.0, 1.0], [-1.0, 2.0]]


def test_users_contrast_with_the_other_users_of_the_batch() -> None:
    own = [[2.0, 1.0], [0.0, 3.0], [-1.0, 0.5]]
    expected = sum(
        -math.log(similarity(m, own[k]) / sum(similarity(m, o) for o in own))
        for k, m in enumerate(MAPPED)
    )
    loss = user_contrast(torch.tensor(MAPPED), torch.tensor(own), CONFIG)
    assert float(loss) == pytest.approx(expected / 3, rel=1e-5)


def test_items_contrast_with_those_that_the_user_has_no_rating_of() -> None:
    items = [[0.0, 1.0], [2.0, 0.0], [1.0, -1.0]]
    rows = [(0, 1), (0, 0), (1, 2), (2, 0), (2, 1), (2, 2)]  # user 2 rated all of the batch
    expected = 0.0
    for user, item in rows:
        others = [j for j in range(3) if (user, j) not in rows]
        positive = similarity(MAPPED[user], items[item])
        negative = sum(similarity(MAPPED[user], items[j]) for j in others)
        expected -= math.log(positive / (positive + negative))
    mapped = torch.tensor(MAPPED, requires_grad=True)
    users, rated = (torch.tensor(column) for column in zip(*rows, strict=True))
    loss = item_contrast(mapped, torch.tensor(items), users, rated, CONFIG)
    assert float(loss.detach()) == pytest.approx(expected / len(rows), rel=1e-5)
    loss.backward()
    assert mapped.grad is not None
    assert mapped.grad.isfinite().all()
    assert mapped.grad[2].abs().max() == 0  # nothing to tell its items from

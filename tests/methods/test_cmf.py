from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from scdr.data import ColdStartSplit
from scdr.methods import METHODS, FitContext
from scdr.methods.cmf import CmfConfig, joint_interactions
from scdr.models import pretrain
from scdr.models.mf import PAPER_PRETRAIN


def test_a_training_user_is_one_user_in_both_domains(split: ColdStartSplit) -> None:
    data = split.training
    joint, means = joint_interactions(data, centred=False)
    source, target = data.source, data.target
    assert means == (0, 0)
    assert len(joint) == len(source) + len(target)
    assert joint.n_users == source.n_users + target.n_users - len(data.train_pairs)
    assert joint.n_items == source.n_items + target.n_items
    np.testing.assert_array_equal(joint.users[: len(source)], source.users)
    to_source = dict(zip(data.train_pairs[:, 1], data.train_pairs[:, 0], strict=True))
    for row in range(len(target)):
        at = len(source) + row
        assert joint.items[at] == source.n_items + target.items[row]
        assert joint.ratings[at] == target.ratings[row]
        user = target.users[row]
        if user in to_source:
            assert joint.users[at] == to_source[user]
        else:
            assert joint.users[at] >= source.n_users
            assert joint.user_ids[joint.users[at]] == target.user_ids[user]


def test_centred_each_domain_has_its_own_mean(split: ColdStartSplit) -> None:
    data = split.training
    joint, means = joint_interactions(data, centred=True)
    first = len(data.source)
    for domain, mean in zip((data.source, data.target), means, strict=True):
        assert mean == pytest.approx(float(domain.ratings.mean(dtype=np.float64)))
    assert abs(joint.ratings[:first].mean(dtype=np.float64)) < 1e-6
    assert abs(joint.ratings[first:].mean(dtype=np.float64)) < 1e-6


def test_one_step_moves_a_user_by_the_errors_of_both_domains(split: ColdStartSplit) -> None:
    """With all rows in one batch an epoch is one step of gradient descent, written out here."""
    data, rate = split.training, 1e-3
    rows, _ = joint_interactions(data, centred=False)
    config = replace(
        PAPER_PRETRAIN, steps=0, epochs=1, batch_size=len(rows), learning_rate=rate, initial_std=0.3
    )
    start = pretrain(
        rows,
        replace(config, epochs=0),
        seed=(5, 2),
        device=torch.device("cpu"),
        advance=lambda **_: None,
        stage="pretrain",
    )
    before_user, before_item = start.user.double().numpy(), start.item.double().numpy()
    user, item = before_user.copy(), before_item.copy()
    to_source = dict(zip(data.train_pairs[:, 1], data.train_pairs[:, 0], strict=True))
    own = [u for u in range(data.target.n_users) if u not in to_source]
    place = {u: data.source.n_users + k for k, u in enumerate(own)} | to_source
    for domain, first_item, rated in (
        ("source", 0, data.source),
        ("target", data.source.n_items, data.target),
    ):
        for u, i, rating in zip(rated.users, rated.items, rated.ratings, strict=True):
            at, item_at = (u if domain == "source" else place[u]), first_item + i
            error = before_user[at] @ before_item[item_at] - rating
            user[at] -= rate * 2 * error * before_item[item_at]
            item[item_at] -= rate * 2 * error * before_user[at]
    predictor = METHODS["cmf"].fit(data, CmfConfig(pretrain=config), FitContext(seed=5))
    vectors, items = predictor.source_vectors.numpy(), predictor.items.vectors.numpy()
    np.testing.assert_allclose(vectors, user[: data.source.n_users], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(items[:-1], item[data.source.n_items :], rtol=1e-4, atol=1e-5)

"""The users of a split, and what is to be expected for them."""

from __future__ import annotations

import numpy as np

from scdr.data import ColdStartSplit
from scdr.methods import FactorPredictor


def history_of(split: ColdStartSplit, user: int) -> dict[str, float]:
    """What a source user has rated, in order of time."""
    source = split.training.source
    rows = np.flatnonzero(source.users == user)
    return {source.item_ids[source.items[r]]: float(source.ratings[r]) for r in rows}


def cold_users(split: ColdStartSplit) -> list[str]:
    """Ids of test users, of whom the model knows the source alone."""
    return [split.training.source.user_ids[user] for user in split.test_pairs[:, 0]]


def target_users(split: ColdStartSplit) -> list[str]:
    """Ids of users with target ratings in training."""
    target = split.training.target
    return [target.user_ids[user] for user in np.unique(target.users)]


def scores(model: FactorPredictor, vector: np.ndarray) -> np.ndarray:
    """Linear predictions of all items in float64."""
    vectors = model.items.vectors[:-1].numpy().astype(np.float64)
    return model.items.offsets[:-1].numpy() + vectors @ vector

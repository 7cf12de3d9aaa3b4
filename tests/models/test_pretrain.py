from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from scdr.data import Interactions, from_columns, planted
from scdr.errors import DivergenceError
from scdr.models import PretrainConfig, pretrain, target_items
from scdr.models.mf import PAPER_PRETRAIN
from scdr.progress import CancelledError, Progress

CPU = torch.device("cpu")


def silent(**values: float) -> None:
    assert np.isfinite(list(values.values())).all()


def checkerboard(n: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Even users love even items and hate odd ones, and the reverse: rank one around the mean."""
    users, items = (a.ravel() for a in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    return users, items, np.where((users + items) % 2 == 0, 5.0, 1.0).astype(np.float32)


@pytest.mark.parametrize(
    "changes",
    [{"sharp_epochs": 0}, {"sharp_epochs": 30}, {"optimizer": "adam"}, {"clip_norm": 100.0}],
    ids=["mf", "smf", "adam", "clipped"],
)
def test_completes_a_checkerboard(changes: dict[str, Any]) -> None:
    users, items, ratings = checkerboard()
    hidden = np.random.default_rng(0).random(len(users)) < 0.2
    data = from_columns(users, items, ratings)
    config = PretrainConfig(
        dimension=4,
        epochs=150,
        radius=0.02,
        user_penalty=0.1,
        item_penalty=0.1,
        batch_size=32,
        **changes,
    )
    factors = pretrain(
        data.take(~hidden), config, seed=(0,), device=CPU, advance=silent, stage="target"
    )
    predicted = factors.offset + factors.user @ factors.item.T
    predicted += factors.user_bias[:, None] + factors.item_bias
    error = predicted[data.users[hidden], data.items[hidden]].numpy() - ratings[hidden]
    assert np.abs(error).max() < 1.0


def test_user_and_item_vectors_give_the_biased_prediction() -> None:
    data = planted(
        source_users=40,
        overlap_users=20,
        target_only_users=5,
        source_items=30,
        target_items=25,
        source_ratings_per_user=10,
        target_ratings_per_user=12,
        core=0,
    ).domains.target
    factors = pretrain(
        data, PretrainConfig(epochs=3), seed=(1,), device=CPU, advance=silent, stage="target"
    )
    items = target_items(factors, data, keep_untrained=True)
    together = items.offsets[:-1] + factors.user_vectors() @ items.vectors[:-1].T
    expected = (
        factors.offset
        + factors.user_bias[:, None]
        + factors.item_bias
        + factors.user @ factors.item.T
    )
    torch.testing.assert_close(together, expected)


@pytest.mark.parametrize("biases", [True, False])
def test_an_item_without_a_rating_is_an_item_never_seen(biases: bool) -> None:
    data = from_columns(["a", "a", "b", "b"], ["x", "y", "x", "z"], [1, 2, 4, 5])
    training = data.take(data.items != 2)
    config = replace(PretrainConfig(), epochs=2, biases=biases)
    factors = pretrain(training, config, seed=(0,), device=CPU, advance=silent, stage="target")
    items = target_items(factors, training, keep_untrained=False)
    torch.testing.assert_close(items.vectors[2], items.vectors[3])
    assert items.offsets[2] == items.offsets[3] == pytest.approx(7 / 3)
    kept = target_items(factors, training, keep_untrained=True)
    torch.testing.assert_close(kept.vectors[2, : config.dimension], factors.item[2])


def test_divergence_names_the_stage_and_what_to_lower() -> None:
    users, items, ratings = checkerboard()
    config = replace(PAPER_PRETRAIN, learning_rate=50.0)
    with pytest.raises(DivergenceError, match=r"source, epoch \d+ of 20.*learning-rate"):
        pretrain(
            from_columns(users, items, ratings),
            config,
            seed=(0,),
            device=CPU,
            advance=silent,
            stage="source",
        )


def test_clipped_gradients_do_not_diverge() -> None:
    users, items, ratings = checkerboard()
    config = replace(PAPER_PRETRAIN, learning_rate=50.0, clip_norm=1e-3)
    factors = pretrain(
        from_columns(users, items, ratings),
        config,
        seed=(0,),
        device=CPU,
        advance=silent,
        stage="source",
    )
    assert factors.user.isfinite().all() and factors.item.isfinite().all()


def test_a_cancelled_stage_ends_within_an_epoch() -> None:
    ids = np.arange(1_000_000, dtype=np.int32) % 1000
    names = np.array([str(i) for i in range(1000)], dtype=object)
    data = Interactions(
        ids, ids, np.ones(len(ids), np.float32), np.zeros(len(ids), np.int64), names, names
    )
    config = replace(PAPER_PRETRAIN, dimension=256, epochs=1, initial_std=0.01)
    progress = Progress()
    timer = threading.Timer(0.2, progress.cancel)
    timer.start()
    with pytest.raises(CancelledError):
        while True:  # a fast machine may finish an epoch before it is cancelled
            pretrain(
                data,
                config,
                seed=(0,),
                device=CPU,
                advance=silent,
                stage="source",
                between_slices=lambda done, total: progress.end_if_cancelled("source"),
            )

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from scdr.errors import DivergenceError
from scdr.models import TargetItems
from scdr.models.mapping import MappingRows
from scdr.models.training import NetworkTrainingConfig, rating_rmse, train_network


class One(nn.Module):
    """A single weight."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))


def silent(**_: float) -> None:
    pass


def test_the_epoch_of_the_lowest_validation_error_is_kept() -> None:
    """The weight goes 10, 9, 8, ... by gradient 1 and rate 1; the error is lowest at 7."""
    network, seen = One(10.0), []

    def losses() -> Iterator[Tensor]:
        yield network.weight

    def error() -> float:
        seen.append(float(network.weight.detach()))
        return abs(seen[-1] - 7)

    config = NetworkTrainingConfig(epochs=50, optimizer="sgd", learning_rate=1.0, patience=2)
    train_network(network, losses, config, generators=[], validation_rmse=error, advance=silent)
    assert seen == [9, 8, 7, 6, 5]
    assert float(network.weight) == 7
    assert not network.weight.requires_grad


@pytest.mark.parametrize("select", ["last", "validation"])
def test_the_last_epoch_is_kept_without_validation_users(select: str) -> None:
    network = One(0.0)
    config = NetworkTrainingConfig(epochs=3, optimizer="sgd", learning_rate=1.0, select=select)
    train_network(
        network,
        lambda: iter([network.weight]),
        config,
        generators=[],
        validation_rmse=None,
        advance=silent,
    )
    assert float(network.weight) == -3


def test_weight_decay_and_clipping_by_hand() -> None:
    network = One(2.0)
    config = NetworkTrainingConfig(
        epochs=1, optimizer="sgd", learning_rate=0.1, weight_decay=0.5, clip_norm=3.0
    )
    train_network(
        network,
        lambda: iter([100 * network.weight]),
        config,
        generators=[],
        validation_rmse=None,
        advance=silent,
    )
    # The gradient of the loss clipped to 3, and 2 * 0.5 * 2 of the penalty.
    assert float(network.weight) == pytest.approx(2 - 0.1 * (3 + 2))


def test_divergence_names_the_epoch_and_what_to_lower() -> None:
    network = One(1e30)
    config = NetworkTrainingConfig(epochs=9, optimizer="sgd", learning_rate=1.0, clip_norm=None)

    def losses() -> Iterator[Tensor]:
        yield network.weight**2 * 1e20

    with pytest.raises(DivergenceError, match=r"mapping, epoch 1 of 9.*learning-rate"):
        train_network(network, losses, config, generators=[], validation_rmse=None, advance=silent)


def test_rating_rmse_by_hand() -> None:
    items = TargetItems(
        torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([3.0, 1.0]), torch.zeros(2)
    )
    rows = MappingRows(torch.tensor([5, 3, 5]), torch.tensor([0, 1, 1]), torch.tensor([4.0, 1, 2]))
    vectors = {3: [0.0, 0.5], 5: [2.0, 1.0]}
    rmse = rating_rmse(
        lambda users: torch.tensor([vectors[user] for user in users.tolist()]), items, rows
    )
    assert rmse is not None
    # Errors 3 + 2 - 4, 1 + 1 - 1 and 1 + 2 - 2.
    assert rmse() == pytest.approx(1.0)
    assert rating_rmse(lambda users: users, items, MappingRows(*(torch.zeros(0),) * 3)) is None

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scdr.methods.tmcdr import Group, MetaLearningConfig, Users, group_pairs, meta_loss
from scdr.models import TargetItems
from scdr.models.mapping import MappingRows, tanh_mlp

ALPHA = 0.3


def group(users: int, ratings: int, seed: int) -> Group:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    position = torch.arange(ratings) % users
    return Group(normal(users, 3), position, normal(ratings, 2), 3 * normal(ratings))


@pytest.fixture
def mapping() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    return tanh_mlp(3, 4, 2, zero_readout=False, generator=generator).double()


def flat_gradient(loss: Tensor, mapping: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(mapping.parameters()))])


def adapted_loss(mapping: nn.Sequential, theta: Tensor, first: Group, second: Group) -> float:
    """`L_b(theta - alpha grad L_a(theta))`, without any derivative through the gradient."""
    nn.utils.vector_to_parameters(theta, mapping.parameters())
    step = flat_gradient(first.loss(mapping(first.vectors)), mapping)
    nn.utils.vector_to_parameters(theta - ALPHA * step, mapping.parameters())
    with torch.no_grad():
        return float(second.loss(mapping(second.vectors)))


def test_the_meta_gradient_is_that_of_finite_differences(mapping: nn.Sequential) -> None:
    first, second = group(3, 7, seed=1), group(2, 5, seed=2)
    theta = nn.utils.parameters_to_vector(mapping.parameters()).detach().clone()
    config = MetaLearningConfig(inner_learning_rate=ALPHA)
    gradient = flat_gradient(meta_loss(mapping, first, second, config=config), mapping)
    step = 1e-6
    expected = [
        adapted_loss(mapping, theta + step * unit, first, second)
        - adapted_loss(mapping, theta - step * unit, first, second)
        for unit in torch.eye(len(theta), dtype=torch.float64)
    ]
    assert gradient.tolist() == pytest.approx(
        [difference / (2 * step) for difference in expected], rel=1e-6, abs=1e-7
    )


def test_first_order_is_the_gradient_at_the_adapted_weights(mapping: nn.Sequential) -> None:
    first, second = group(3, 7, seed=1), group(2, 5, seed=2)
    theta = nn.utils.parameters_to_vector(mapping.parameters()).detach().clone()
    config = MetaLearningConfig(inner_learning_rate=ALPHA, first_order=True)
    gradient = flat_gradient(meta_loss(mapping, first, second, config=config), mapping)
    step = flat_gradient(first.loss(mapping(first.vectors)), mapping)
    nn.utils.vector_to_parameters(theta - ALPHA * step, mapping.parameters())
    expected = flat_gradient(second.loss(mapping(second.vectors)), mapping)
    torch.testing.assert_close(gradient, expected)
    second_order = meta_loss(
        mapping, first, second, config=MetaLearningConfig(inner_learning_rate=ALPHA)
    )
    assert not torch.allclose(flat_gradient(second_order, mapping), gradient, rtol=0.01)


@pytest.mark.parametrize(("users", "size", "left_over"), [(10, 3, 0), (4, 8, 0), (7, 3, 1)])
def test_groups_are_disjoint_and_hold_everyone_once(users: int, size: int, left_over: int) -> None:
    pairs = list(group_pairs(users, size, torch.Generator().manual_seed(0)))
    held = torch.cat([torch.cat(pair) for pair in pairs])
    assert len(held) == len(held.unique()) == users - left_over
    assert all(0 < len(part) <= size for pair in pairs for part in pair)


def test_a_group_has_all_ratings_of_its_users() -> None:
    rows = MappingRows(
        users=torch.tensor([7, 2, 7, 4, 2, 7]),
        items=torch.tensor([0, 1, 1, 2, 0, 2]),
        ratings=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    )
    items = TargetItems(torch.eye(3), torch.tensor([0.5, 0.0, -0.5]), torch.zeros(3))
    users = Users(10 * torch.arange(8.0)[:, None], items, rows)
    assert len(users) == 3  # users 2, 4 and 7
    taken = users.take(torch.tensor([2, 0]))
    assert taken.vectors[:, 0].tolist() == [70, 20]
    item = taken.items.argmax(1)
    found = torch.stack([taken.position, item, taken.residuals], dim=1).tolist()
    assert sorted(found) == [[0, 0, 0.5], [0, 1, 3.0], [0, 2, 6.5], [1, 0, 4.5], [1, 1, 2.0]]

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scdr.models.bilinear_mapping import BilinearRows, normal_equations, sharp_coefficients


@pytest.fixture
def rows() -> BilinearRows:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    user = torch.randint(30, (400,), generator=generator)
    users, items = normal(30, 4), normal(400, 3)
    truth = normal(5, 3)
    mapped = truth[0] + users @ truth[1:]
    residual = (mapped[user] * items).sum(1) + normal(400)
    return BilinearRows(user, users, items, residual, 0.2 + normal(400).abs())


def sharp_loss(coefficients: Tensor, rows: BilinearRows, penalty: Tensor, radius: float) -> Tensor:
    error = (rows.residual - rows.predict(coefficients)).abs()
    spread = radius * (rows.items @ coefficients[3:].T).norm(dim=1)
    return (rows.weight * (error + spread) ** 2).sum() + (penalty * coefficients**2).sum()


def test_the_ridge_solution_has_no_gradient(rows: BilinearRows) -> None:
    penalty = torch.linspace(0.5, 30, 15, dtype=torch.float64).reshape(5, 3)
    coefficients = normal_equations(rows).solve(penalty).requires_grad_()
    loss = sharp_loss(coefficients, rows, penalty, 0.0)
    (gradient,) = torch.autograd.grad(loss, coefficients)
    assert gradient.abs().max() < 1e-9 * loss


def test_normal_equations_add_up_over_rows(rows: BilinearRows) -> None:
    first = torch.arange(400) < 150
    rest = normal_equations(rows) - normal_equations(rows.take(first))
    torch.testing.assert_close(rest.matrix, normal_equations(rows.take(~first)).matrix)
    torch.testing.assert_close(rest.vector, normal_equations(rows.take(~first)).vector)


@pytest.mark.parametrize("radius", [0.05, 0.5])
def test_the_sharp_solution_is_the_minimum_that_lbfgs_finds(
    rows: BilinearRows, radius: float
) -> None:
    """The perturbation moves the last two of four coordinates; rows 3 and 4 of A belong to them."""
    penalty = torch.full((5, 3), 2.0, dtype=torch.float64)
    ridge = normal_equations(rows).solve(penalty)
    found = sharp_coefficients(rows, ridge, penalty, radius=radius, moved=slice(2, 4))
    free = ridge.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([free], max_iter=2000, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = sharp_loss(free, rows, penalty, radius)
        loss.backward()
        return loss

    optimizer.step(closure)
    best = float(sharp_loss(free.detach(), rows, penalty, radius))
    assert float(sharp_loss(found, rows, penalty, radius)) < best * 1.001
    assert float(sharp_loss(found, rows, penalty, radius)) < float(
        sharp_loss(ridge, rows, penalty, radius)
    )
    assert found[3:].norm() < ridge[3:].norm()


def test_the_sharp_loss_is_the_worst_case_over_the_ball(rows: BilinearRows) -> None:
    coefficients = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).double()
    row, radius = 7, 0.4
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    delta = radius * directions / directions.norm(dim=1, keepdim=True)
    user = rows.users[rows.user[row]].repeat(len(delta), 1)
    user[:, 2:] += delta
    predictions = (coefficients[0] + user @ coefficients[1:]) @ rows.items[row]
    worst = ((rows.residual[row] - predictions) ** 2).max()
    one = rows.take(torch.tensor([row]))
    closed = sharp_loss(coefficients, one, torch.zeros(5, 3).double(), radius) / one.weight[0]
    assert float(worst) == pytest.approx(float(closed), rel=1e-4)

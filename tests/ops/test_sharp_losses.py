"""The two sharp losses: values and gradients of Eq. 15, delta* a constant."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scdr.ops import pgd_perturb, reference, sharp_mapping_loss, sharp_mf_loss


def draw(batch: int = 12, width: int = 10) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    user = torch.randn(batch, width, generator=generator, dtype=torch.float64)
    item = torch.randn(batch, width, generator=generator, dtype=torch.float64)
    return user, item, 5 * torch.rand(batch, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("radius", [0.5, 50.0])
def test_smf_is_the_error_plus_c_times_the_l1_norm(radius: float) -> None:
    user, item, rating = draw()
    error = (user * item).sum(1) - rating
    c = min(5 / 10**0.5, radius / 10**0.5)
    expected = (error.abs() + c * item.abs().sum(1)) ** 2
    loss = sharp_mf_loss(user, item, rating, steps=5, radius=radius)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)


def test_smf_gradients_are_those_of_eq_15_worked_by_hand() -> None:
    user, item, rating = draw()
    user.requires_grad_()
    item.requires_grad_()
    sharp_mf_loss(user, item, rating, steps=5, radius=1.0).sum().backward()
    with torch.no_grad():
        delta = reference.pgd_perturb(user, item, rating, steps=5, radius=1.0)
        error = ((user + delta) * item).sum(1, keepdim=True) - rating[:, None]
    torch.testing.assert_close(user.grad, 2 * error * item.detach())
    torch.testing.assert_close(item.grad, 2 * error * (user.detach() + delta))


def test_without_steps_it_is_the_plain_loss_and_its_gradient() -> None:
    user, item, rating = draw()
    user.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda u: sharp_mf_loss(u, item, rating, steps=0, radius=1.0), (user,)
    )


def test_mapping_gradients_match_finite_differences_at_a_fixed_perturbation() -> None:
    user, item, rating = draw()
    torch.manual_seed(0)
    mapping = nn.Sequential(nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 10)).double()
    delta = pgd_perturb(user, item, rating, mapping, steps=4, radius=0.7)

    def total() -> torch.Tensor:
        return (((mapping(user + delta) * item).sum(1) - rating) ** 2).sum()

    user.requires_grad_()
    sharp_mapping_loss(user, item, rating, mapping, steps=4, radius=0.7).sum().backward()
    with torch.no_grad():
        for tensor in (user, *mapping.parameters()):
            gradient, flat = tensor.grad.flatten(), tensor.view(-1)
            for index in range(0, len(flat), max(1, len(flat) // 7)):
                kept = flat[index].item()
                flat[index] = kept + 1e-6
                up = total()
                flat[index] = kept - 1e-6
                down = total()
                flat[index] = kept
                # Central differences err by about 1e-9 of the loss here.
                assert gradient[index].item() == pytest.approx(
                    ((up - down) / 2e-6).item(), rel=1e-5, abs=1e-5
                )


def test_the_perturbation_is_inside_the_mapping() -> None:
    """Eq. 7 and 12: a mapping that ignores its input leaves nothing to perturb."""
    user, item, rating = draw()
    constant = nn.Linear(10, 10).double()
    nn.init.zeros_(constant.weight)
    sharp = sharp_mapping_loss(user, item, rating, constant, steps=5, radius=5.0)
    plain = ((constant.bias * item).sum(1) - rating) ** 2
    torch.testing.assert_close(sharp, plain)

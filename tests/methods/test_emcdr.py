from __future__ import annotations

import pytest
import torch

from scdr.methods.emcdr import VectorMappingConfig, new_mapping, vector_losses
from scdr.models.training import train_network


def silent(**_: float) -> None:
    pass


def test_eq_3_by_hand() -> None:
    config = VectorMappingConfig(batch_size=8)
    generator = torch.Generator().manual_seed(0)
    mapping = new_mapping(2, 2, config, generator)
    mapping.load_state_dict({"weight": torch.tensor([[1.0, 2.0], [0.0, 1.0]])})
    source, target = torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([[3.0, 2.0], [0.0, 0.0]])
    (loss,) = vector_losses(mapping, source, target, config, generator)
    # Mapped: (3, 1) and (2, 0); squared distances 1 and 4, each over d = 2, mean over two users.
    assert float(loss.detach()) == pytest.approx((1 / 2 + 4 / 2) / 2)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_finds_a_linear_map(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(500, 6, generator=generator)
    truth = torch.randn(6, 4, generator=generator) / 4
    config = VectorMappingConfig(kind=kind, epochs=100)
    mapping = new_mapping(6, 4, config, generator)
    train_network(
        mapping,
        lambda: vector_losses(mapping, source, source @ truth, config, generator),
        config,
        generators=[generator],
        validation_rmse=None,
        advance=silent,
    )
    fresh = torch.randn(200, 6, generator=generator)
    error = (mapping(fresh) - fresh @ truth).norm() / (fresh @ truth).norm()
    assert error < (1e-3 if kind == "linear" else 0.15)

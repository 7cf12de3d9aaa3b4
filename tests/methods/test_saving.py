from __future__ import annotations

import pytest
import torch
from torch import nn

from scdr.methods.saving import describe, restore


@pytest.mark.parametrize(
    "mapping",
    [
        nn.Linear(3, 2, bias=False),
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4, bias=False), nn.ReLU()),
    ],
)
def test_a_mapping_comes_back_as_it_was(mapping: nn.Module) -> None:
    again = restore(*describe(mapping))
    assert again is not None
    vectors = torch.randn(5, 3)
    assert torch.equal(again(vectors), mapping(vectors))
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_the_identity_comes_back_as_none() -> None:
    assert restore(*describe(None)) is None


def test_a_mapping_that_would_come_back_as_another_is_refused() -> None:
    with pytest.raises(TypeError, match="GELU"):
        describe(nn.Sequential(nn.Linear(2, 2), nn.GELU()))

"""Which epoch of a training is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor


class BestEpoch:
    """Keeps the weights of the epoch with the lowest error on validation users."""

    def __init__(
        self, weights: Sequence[Tensor], *, patience: int, select: Literal["validation", "last"]
    ) -> None:
        """Watch weights that epochs change in place; with "last" nothing is kept."""
        self._weights, self._patience, self._select = weights, patience, select
        self._lowest, self._waited = math.inf, 0
        self._kept: list[Tensor] = []

    @property
    def ended(self) -> bool:
        """Whether as many epochs as `patience` have gone by without a better one."""
        return self._waited >= self._patience

    def judge(self, rmse: float | None) -> None:
        """Take note of an epoch; None where there are no validation users."""
        if rmse is None or self._select == "last":
            return
        if rmse < self._lowest:
            self._lowest, self._waited = rmse, 0
            self._kept = [weight.detach().clone() for weight in self._weights]
        else:
            self._waited += 1

    @torch.no_grad()
    def restore(self) -> None:
        """Put the weights back to those of the best epoch; the last one where none was judged."""
        for weight, kept in zip(self._weights, self._kept, strict=False):
            weight.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far."""
        return {"lowest": self._lowest, "waited": self._waited, "kept": self._kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave for weights of the same shapes."""
        self._lowest, self._waited = state["lowest"], state["waited"]
        self._kept = [
            kept.to(weight.device)
            for kept, weight in zip(state["kept"], self._weights, strict=False)
        ]

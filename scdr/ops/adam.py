"""What Adam remembers between batches and epochs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class AdamState:
    """Moments of the gradients of some tables, and Adam's settings; the epoch ops write to it.

    A row of a table of vectors is updated only by batches that hold it (lazily, as by
    `torch.optim.SparseAdam`): its moments do not decay in between. Bias correction counts every
    batch. Nothing of a batch is applied before its gradients have been summed over its rows.

    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    Attributes:
        first: first moment of each table by name, float32, shaped as the table.
        second: second moment, likewise.
        step: batches applied so far.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.
    """

    first: dict[str, Tensor] = field(default_factory=dict)
    second: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    @classmethod
    def zeros(
        cls, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, **tables: Tensor | None
    ) -> AdamState:
        """Before the first batch. A table that is None has no moments.

        Raises:
            ValueError: a setting out of range, by name.
        """
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= beta < 1:
                raise ValueError(f"{name} is {beta}; it must be in [0, 1)")
        if not eps > 0:
            raise ValueError(f"eps is {eps}; it must be positive")
        present = {name: table for name, table in tables.items() if table is not None}
        return cls(
            first={name: torch.zeros_like(table) for name, table in present.items()},
            second={name: torch.zeros_like(table) for name, table in present.items()},
            beta1=beta1,
            beta2=beta2,
            eps=eps,
        )

    def state_dict(self) -> dict[str, Any]:
        """What changes from batch to batch; the moments are those tensors themselves."""
        return {"first": self.first, "second": self.second, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave for tables of the same names and shapes."""
        for name in self.first:
            self.first[name].copy_(state["first"][name])
            self.second[name].copy_(state["second"][name])
        self.step = state["step"]


def native_arguments(
    adam: AdamState | None, tables: Iterable[str]
) -> tuple[dict[str, Any], Tensor | None]:
    """What a native op takes for `adam`, and the tensor in which it counts batches.

    Raises:
        ValueError: `adam` has moments of other tables than these.
    """
    if adam is None:
        return {}, None
    names = sorted(tables)
    for which, moments in (("first", adam.first), ("second", adam.second)):
        if sorted(moments) != names:
            raise ValueError(f"adam.{which} is of {sorted(moments)}; the tables given are {names}")
    count = torch.tensor(adam.step, dtype=torch.int64)
    arguments = {
        f"{name}_{which}": moments[name]
        for which, moments in (("first", adam.first), ("second", adam.second))
        for name in names
    }
    settings = {"beta1": adam.beta1, "beta2": adam.beta2, "eps": adam.eps}
    return {**arguments, **settings, "adam_step": count}, count

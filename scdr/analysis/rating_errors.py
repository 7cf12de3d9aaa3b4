"""The error of each test rating as a function of the user vector it is predicted from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scdr.data import ColdStartSplit, source_users
from scdr.methods import FactorPredictor
from scdr.models.personal import PersonalMapping
from scdr.ops.pgd_perturb import DEVICES
from scdr.ops.threads import one_thread

_ROWS_AT_ONCE = 2_048
"""Rows whose hidden units stay in a core's cache."""


@dataclass(frozen=True, slots=True)
class RatingErrors:
    """Errors `e_i(x) = <f(x), items_i> - residuals_i` of n ratings.

    They are those of the linear prediction: not clipped, and before a distribution of ratings.

    Where each user has a bridge of their own, `<u M_u, v>` is `<u, M_u v>`: the bridge, which does
    not depend on the vector, is folded into the item, and f is the identity.

    Attributes:
        users: `[n]` int64, source user of each rating.
        vectors: `[n, d_source]` float32 or float64, source vectors as the predictor has them.
        items: `[n, d]`, what the mapped vector is multiplied with.
        residuals: `[n]`, ratings less the offsets of their items.
        mapping: f, row by row, or None for the identity.
    """

    users: Tensor
    vectors: Tensor
    items: Tensor
    residuals: Tensor
    mapping: nn.Module | None

    def __len__(self) -> int:
        """Return the number of ratings."""
        return len(self.residuals)

    def parts(self, size: int = _ROWS_AT_ONCE) -> Iterator[tuple[slice, RatingErrors]]:
        """Some rows after the other, each time with where they are; none where there are none."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield (
                rows,
                RatingErrors(
                    self.users[rows],
                    self.vectors[rows],
                    self.items[rows],
                    self.residuals[rows],
                    self.mapping,
                ),
            )

    @one_thread()
    @torch.no_grad()
    def at(self, vectors: Tensor) -> Tensor:
        """`e_i(vectors_i)`, `[n]`, without a gradient; `vectors` is `[n, d_source]`."""
        errors = torch.empty_like(self.residuals)
        for rows, part in self.parts():
            mapped = apply_mapping(self.mapping, vectors[rows])[-1]
            errors[rows] = (mapped * part.items).sum(1) - part.residuals
        return errors

    @one_thread()
    @torch.no_grad()
    def with_slopes_at(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """`e_i(vectors_i)` `[n]` and its gradient in the vector `[n, d_source]`, as constants."""
        errors, slopes = torch.empty_like(self.residuals), torch.empty_like(self.vectors)
        for rows, part in self.parts():
            values = apply_mapping(self.mapping, vectors[rows])
            errors[rows] = (values[-1] * part.items).sum(1) - part.residuals
            slopes[rows] = _pull_back(self.mapping, values, part.items)
        return errors, slopes

    def coordinate_rms(self) -> float:
        """Root mean square of the coordinates of the users' vectors, each user counted once."""
        vectors = self.vectors[first_rows(self.users)]
        return float(vectors.double().square().mean().sqrt())


def cold_start_errors(
    predictor: FactorPredictor, split: ColdStartSplit, *, rows: int | None = None, seed: int = 0
) -> RatingErrors:
    """The errors of a fitted method on test ratings.

    Args:
        predictor: fitted on `split.training`.
        split: the split.
        rows: test ratings to take at random, in their order; None or too many is all. The choice
            depends on split and seed alone, and so is the same for all methods.
        seed: of the choice.

    Raises:
        ValueError: `rows` is not positive, or the predictor does not go with the split.
    """
    if rows is not None and rows < 1:
        raise ValueError(f"rows is {rows}; it must be 1 or more, or None for all")
    source, test = split.training.source, split.test
    for name, has, wants in (
        ("source vectors", len(predictor.source_vectors), source.n_users),
        ("target items", len(predictor.items.offsets) - 1, test.n_items),
    ):
        if has != wants:
            raise ValueError(f"predictor has {has} {name}, the split {wants}")
    chosen = np.arange(len(test))
    if rows is not None and rows < len(test):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(test))[:rows])
    return errors_of(
        predictor,
        source_users(split.test_pairs, test)[chosen],
        test.items[chosen],
        test.ratings[chosen],
    )


@one_thread()
@torch.no_grad()
def errors_of(
    predictor: FactorPredictor,
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    ratings: NDArray[np.floating],
) -> RatingErrors:
    """The errors of a fitted method on any ratings.

    Args:
        predictor: a fitted method.
        users: `[n]` source user of each rating.
        items: `[n]` target item of each rating.
        ratings: `[n]` ratings.
    """
    vectors = predictor.source_vectors
    device, dtype = vectors.device, vectors.dtype
    user = torch.from_numpy(users.astype(np.int64)).to(device)
    item = torch.from_numpy(items.astype(np.int64)).to(device)
    residuals = torch.from_numpy(ratings).to(device, dtype) - predictor.items.offsets[item]
    item_vectors, mapping = predictor.items.vectors[item], predictor.mapping
    if isinstance(mapping, PersonalMapping):
        item_vectors, mapping = _through_bridges(mapping, user, item_vectors), None
    return RatingErrors(user, vectors[user], item_vectors, residuals, mapping)


def _through_bridges(mapping: PersonalMapping, users: Tensor, items: Tensor) -> Tensor:
    """`M_u v` for each row, `[n, d_source]`; each user's bridge is worked out once."""
    distinct, position = torch.unique(users, return_inverse=True)
    bridges = torch.cat(
        [mapping.bridges(mapping.history[some]) for some in distinct.split(_ROWS_AT_ONCE)]
    )
    result = [
        torch.bmm(bridges[whose], some[:, :, None])[:, :, 0]
        for whose, some in zip(
            position.split(_ROWS_AT_ONCE), items.split(_ROWS_AT_ONCE), strict=True
        )
    ]
    return torch.cat(result)


def first_rows(users: Tensor) -> Tensor:
    """Where each distinct user is first, `[K]` int64, in order of the users."""
    ordered, order = torch.sort(users, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


def apply_mapping(mapping: nn.Module | None, vectors: Tensor) -> list[Tensor]:
    """The vectors, what each layer makes of them, and last the mapped vectors."""
    values = [vectors]
    for layer in layers_of(mapping):
        values.append(apply_layer(layer, values[-1]))
    return values


def layers_of(mapping: nn.Module | None) -> list[nn.Module]:
    """The layers of a sequence; none for the identity, any other mapping as one layer."""
    if mapping is None:
        return []
    return list(mapping) if type(mapping) is nn.Sequential else [mapping]


def apply_layer(layer: nn.Module, values: Tensor) -> Tensor:
    """`layer(values)`, a tanh in float32 by the native op, within 4e-7 of torch's."""
    if type(layer) is nn.Tanh and values.dtype == torch.float32 and values.device.type in DEVICES:
        tanh: Tensor = torch.ops.scdr.tanh.default(values)
        return tanh
    result: Tensor = layer(values)
    return result


def _pull_back(mapping: nn.Module | None, values: list[Tensor], gradient: Tensor) -> Tensor:
    """The gradient at `values[0]` of what has `gradient` at `values[-1]`, layer by layer."""
    for layer, before, after in zip(
        reversed(layers_of(mapping)), values[-2::-1], values[:0:-1], strict=True
    ):
        if type(layer) is nn.Linear:
            gradient = gradient @ layer.weight
        elif type(layer) is nn.Tanh:
            gradient = gradient * (1 - after * after)
        else:
            with torch.enable_grad():
                at = before.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(layer(at), at, gradient)
    return gradient

"""User and item factors of one domain, and the target items as the mapping stage sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scdr.data import Interactions


@dataclass(frozen=True, slots=True)
class Factors:
    """A matrix factorisation of one domain: `r = offset + b_u + b_i + <u, v>`.

    Attributes:
        user: user factors `[U, d]` float32.
        item: item factors `[I, d]` float32.
        user_bias: `[U]` float32, or None for a model without biases.
        item_bias: `[I]` float32, or None for a model without biases.
        offset: the constant; 0 without biases.
    """

    user: Tensor
    item: Tensor
    user_bias: Tensor | None = None
    item_bias: Tensor | None = None
    offset: float = 0.0

    def user_vectors(self) -> Tensor:
        """All that the model knows of each user: `[U, d]`, or `[U, d + 1]` with the bias last.

        With biases, `<user vector, item vector>` is `<u, v> + b_u`, so that mapping, perturbation
        and analysis need no special case for them.
        """
        if self.user_bias is None:
            return self.user
        return torch.cat([self.user, self.user_bias[:, None]], dim=1)

    def item_vectors(self) -> Tensor:
        """All that the model knows of each item: `[I, d]`, or `[I, d + 1]` with the bias last."""
        if self.item_bias is None:
            return self.item
        return torch.cat([self.item, self.item_bias[:, None]], dim=1)

    def to(self, device: torch.device) -> Factors:
        """The same factors on a device."""

        def moved(bias: Tensor | None) -> Tensor | None:
            return None if bias is None else bias.to(device)

        return Factors(
            user=self.user.to(device),
            item=self.item.to(device),
            user_bias=moved(self.user_bias),
            item_bias=moved(self.item_bias),
            offset=self.offset,
        )


@dataclass(frozen=True, slots=True)
class TargetItems:
    """The target items, fixed, with one more at the end for an item never seen.

    A prediction is `offsets[i] + <mapped user vector, vectors[i]>`, and `priors[i]` for a user of
    whom nothing is known.

    Attributes:
        vectors: `[I + 1, d]`, or `[I + 1, d + 1]` with a last column of ones for the user bias.
        offsets: `[I + 1]`, what does not depend on the user.
        priors: `[I + 1]`, the rating expected from an unknown user.
    """

    vectors: Tensor
    offsets: Tensor
    priors: Tensor


def target_items(factors: Factors, training: Interactions, *, keep_untrained: bool) -> TargetItems:
    """The items of the target's factors as the mapping stage and predictions use them.

    Args:
        factors: of the target domain.
        training: the rows they were trained on.
        keep_untrained: leave an item without a training row at its initial vector, as published
            code does; otherwise it is treated as an item never seen.
    """
    mean = float(training.ratings.mean(dtype=np.float64))
    device = factors.item.device
    n_items, width = factors.item.shape
    vectors = torch.zeros(n_items + 1, width, device=device)  # [I + 1, d]
    vectors[:-1] = factors.item
    if factors.item_bias is None:
        offsets = torch.zeros(n_items + 1, device=device)
        priors = torch.full_like(offsets, mean)
        unseen_offset = mean
    else:
        vectors = torch.cat([vectors, torch.ones(n_items + 1, 1, device=device)], dim=1)
        offsets = torch.full((n_items + 1,), factors.offset, device=device)
        offsets[:-1] += factors.item_bias
        priors = offsets.clone()
        unseen_offset = factors.offset

    unseen = torch.zeros(n_items + 1, dtype=torch.bool, device=device)
    unseen[-1] = True
    if not keep_untrained:
        rated = np.bincount(training.items, minlength=n_items) > 0
        unseen[:-1] = torch.from_numpy(~rated).to(device)
    vectors[unseen, :width] = 0.0
    offsets[unseen] = unseen_offset
    priors[unseen] = unseen_offset
    return TargetItems(vectors=vectors, offsets=offsets, priors=priors)

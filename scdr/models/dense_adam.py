"""Adam on the tables of a matrix factorisation, the optimiser of much published code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scdr.models.factors import Factors
from scdr.ops import pgd_perturb
from scdr.ops.mf_sgd_epoch import SpoiltTablesError
from scdr.ops.perturbation import Inner
from scdr.ops.slices import SliceProgress
from scdr.ops.threads import one_thread


class DenseAdamEpoch:
    """`mf_sgd_epoch_` with Adam on the mean over a batch, its moments kept between epochs.

    It is `torch.optim.Adam` on dense embeddings: every row of a table moves at every step, also one
    without a rating in the batch, so that a step takes time in proportion to the tables.
    """

    def __init__(self, factors: Factors) -> None:
        """Take the tables that the epochs will be given."""
        self._tables = [factors.user, factors.item]
        if factors.user_bias is not None and factors.item_bias is not None:
            self._tables += [factors.user_bias, factors.item_bias]
        for table in self._tables:
            table.grad = torch.zeros_like(table)
        self._optimizer = torch.optim.Adam(self._tables, fused=True)

    def state_dict(self) -> dict[str, Any]:
        """The moments of the tables, as torch.optim gives them."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._optimizer.load_state_dict(state)

    @torch.no_grad()
    @one_thread()
    def __call__(
        self,
        user: Tensor,
        item: Tensor,
        users: Tensor,
        items: Tensor,
        ratings: Tensor,
        order: Tensor,
        *,
        lr: float,
        batch_size: int,
        user_bias: Tensor | None,
        item_bias: Tensor | None,
        offset: float,
        steps: int,
        step_size: float | None,
        radius: float,
        inner: Inner,
        user_penalty: float,
        item_penalty: float,
        user_bias_penalty: float,
        item_bias_penalty: float,
        user_inverse_count: Tensor | None,
        item_inverse_count: Tensor | None,
        clip_norm: float | None,
        progress: SliceProgress | None,
    ) -> Tensor:
        """Visit the ratings in `order`: arguments, loss and result as in `mf_sgd_epoch_`.

        `progress` is called after each batch.

        Raises:
            SpoiltTablesError: an error left the finite numbers.
        """
        self._optimizer.param_groups[0]["lr"] = lr
        penalties = (user_penalty, item_penalty, user_bias_penalty, item_bias_penalty)
        done = 0
        total = torch.zeros((), dtype=torch.float64, device=ratings.device)
        for rows in order.split(batch_size):
            index = (users[rows], items[rows])  # [B] each; even tables are of users, odd of items
            looked_up = [table[index[k % 2]] for k, table in enumerate(self._tables)]
            u, v, *biases = looked_up  # [B, d], [B, d], [B], [B]
            residual = ratings[rows] - offset - sum(biases)  # [B]
            if steps and radius:
                u = u + pgd_perturb(
                    u, v, residual, steps=steps, step_size=step_size, radius=radius, inner=inner
                )
            error = (u * v).sum(1) - residual  # [B]
            scaled = (2 / len(rows)) * error  # [B]
            gradients = [scaled[:, None] * v, scaled[:, None] * u, scaled, scaled]
            for k, table in enumerate(self._tables):
                gradient = gradients[k]
                if penalties[k]:
                    pull = torch.full_like(error, 2 * penalties[k] / len(rows))
                    inverse = (user_inverse_count, item_inverse_count)[k % 2]
                    if inverse is not None:
                        pull *= inverse[index[k % 2]]
                    own = looked_up[k]
                    gradient = gradient + (pull[:, None] if own.dim() == 2 else pull) * own
                assert table.grad is not None
                # Not index_add_, which on CUDA adds in any order.
                table.grad.zero_().index_put_((index[k % 2],), gradient, accumulate=True)
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(self._tables, clip_norm)
            self._optimizer.step()
            total += error.square().sum()
            done += len(rows)
            if progress:
                progress(done, len(order))
        if not bool(total.isfinite()):
            raise SpoiltTablesError("an error is not finite")
        return total

"""Pretraining with a graph backbone: the MF or SMF loss at its output vectors."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scdr.checkpoints import Stage
from scdr.data import Interactions
from scdr.errors import DivergenceError, InputError
from scdr.models.backbones import NGCF, LightGCN
from scdr.models.biases import fit_biases
from scdr.models.factors import Factors
from scdr.models.graph import BipartiteGraph
from scdr.models.mf import PretrainConfig
from scdr.ops import pgd_perturb
from scdr.ops.slices import SliceProgress
from scdr.ops.threads import one_thread
from scdr.progress import Advance

WIDEST = 256
"""Width of the widest vectors that the kernels take, without a bias."""


@one_thread()
def pretrain_graph(
    interactions: Interactions,
    config: PretrainConfig,
    *,
    seed: tuple[int, ...],
    device: torch.device,
    advance: Advance,
    stage: str,
    between_slices: SliceProgress | None = None,
) -> Factors:
    """Train the graph backbone of one domain; its output vectors are the factors.

    Like `pretrain`, with `loss` the root mean squared (perturbed) error and `validation` the same
    on held-out ratings. On the CPU it uses one thread, since sums over the gradients of NGCF's
    weights round differently with more.

    Raises:
        InputError: NGCF's vectors would be wider than the mapping stage takes.
        DivergenceError: the loss or a vector left the finite numbers.
    """
    training = GraphTraining(interactions, config, seed=seed, device=device)
    epochs = config.graph.epochs + config.graph.sharp_epochs
    kept = Stage.of(advance)
    for epoch in kept.epochs(epochs, {"training": training}, ended=lambda: training.ended):
        values = training.epoch(between_slices)
        if not all(map(math.isfinite, values.values())):
            raise DivergenceError(
                "training diverged: an error is not finite",
                where=f"{stage}, epoch {epoch + 1} of {epochs}",
                fix="lower --pretrain.graph.learning-rate or --pretrain.radius",
            )
        kept(**values)
    return training.factors()


class GraphTraining:
    """The training of one domain's backbone, epoch by epoch.

    The plain loss comes first, until it no longer falls on held-out ratings; then, from the best
    epoch, the sharp loss (Eq. 10) in the same way.

    Attributes:
        sharp: whether the next epoch minimises the sharp loss.
        ended: whether there is no next epoch.
    """

    def __init__(
        self,
        interactions: Interactions,
        config: PretrainConfig,
        *,
        seed: tuple[int, ...],
        device: torch.device,
    ) -> None:
        """Draw the held-out ratings and the initial vectors.

        Raises:
            InputError: NGCF's vectors would be wider than the mapping stage takes.
        """
        width = config.dimension * (config.graph.layers + 1)
        if config.backbone == "ngcf" and width > WIDEST:
            raise InputError(
                f"NGCF's vectors would be {width} wide, and {WIDEST} is the most",
                where="--pretrain.dimension, --pretrain.graph.layers",
                fix=f"keep dimension * (layers + 1) within {WIDEST}",
            )
        self._config, self._graph_config = config, config.graph
        generator = np.random.default_rng(seed)
        n_users, n_items = interactions.n_users, interactions.n_items
        held_out = _held_out(interactions, config.graph.validation_fraction, generator)
        training, validation = interactions.take(~held_out), interactions.take(held_out)
        graph = BipartiteGraph.of(
            training.users, training.items, n_users=n_users, n_items=n_items, device=device
        )
        user, item = (
            torch.from_numpy(
                generator.standard_normal((rows, config.dimension), dtype=np.float32)
                * np.float32(config.graph.initial_std)
            ).to(device)
            for rows in (n_users, n_items)
        )
        self._generator = torch.Generator().manual_seed(int(generator.integers(2**63)))
        layers = config.graph.layers
        self._backbone: LightGCN | NGCF
        if config.backbone == "lightgcn":
            self._backbone = LightGCN(graph, user, item, layers=layers)
        else:
            self._backbone = NGCF(graph, user, item, layers=layers, generator=self._generator)
        self._biases = _Biases(training, config).to(device)
        self._parameters = [*self._backbone.parameters(), *self._biases.parameters()]
        self._optimizer = self._new_optimizer()
        self._training, self._validation = (
            _columns(rows, device) for rows in (training, validation)
        )
        self.sharp = False
        self._done = 0
        self._lowest, self._waited = math.inf, 0
        self._best: list[Tensor] = []
        self.ended = False
        self._next_phase()

    def epoch(self, between_batches: SliceProgress | None = None) -> dict[str, float]:
        """One pass over the ratings.

        Args:
            between_batches: called with ratings done and ratings in all; may raise to end it.

        Returns:
            `loss` and, where ratings are held out, `validation`.
        """
        users, items, ratings = self._training
        n = len(ratings)
        order = torch.randperm(n, generator=self._generator).to(ratings.device)
        squared = torch.zeros((), dtype=torch.float64, device=ratings.device)
        done = 0
        for batch in order.split(self._graph_config.batch_of(n)):
            if between_batches is not None:
                between_batches(done, n)
            done += len(batch)
            self._optimizer.zero_grad(set_to_none=True)
            user, item = self._backbone()
            errors = self._errors(user, item, users[batch], items[batch], ratings[batch])
            sum_of_squares = errors.square().sum()
            (sum_of_squares / len(batch) + self._penalty() / n).backward()
            self._optimizer.step()
            squared += sum_of_squares.detach()
        values = {"loss": math.sqrt(float(squared) / max(n, 1))}
        if len(self._validation[2]):
            values["validation"] = self._validation_loss()
        self._done += 1
        self._judge(values.get("validation"))
        return values

    @torch.no_grad()
    def factors(self) -> Factors:
        """The output vectors of the best epoch."""
        self._restore()
        user, item = self._backbone()
        return Factors(
            user=user.clone(),
            item=item.clone(),
            user_bias=self._biases.user.detach().clone() if self._config.biases else None,
            item_bias=self._biases.item.detach().clone() if self._config.biases else None,
            offset=self._biases.offset,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on beside the data and the configuration."""
        return {
            "parameters": [parameter.detach() for parameter in self._parameters],
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "best": self._best,
            "progress": [self.sharp, self.ended, self._done, self._lowest, self._waited],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for parameter, value in zip(self._parameters, state["parameters"], strict=True):
            parameter.copy_(value)
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._generator.set_state(state["generator"])
        self._best = [value.to(self._parameters[0].device) for value in state["best"]]
        self.sharp, self.ended, self._done, self._lowest, self._waited = state["progress"]

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self._parameters, lr=self._graph_config.learning_rate, fused=True)

    def _errors(
        self, user: Tensor, item: Tensor, users: Tensor, items: Tensor, ratings: Tensor
    ) -> Tensor:
        """Errors `[B]`, perturbed in the sharp phase; gradients as in Eq. 15."""
        # An embedding's gradient sums in a fixed order, unlike that of indexing.
        u = nn.functional.embedding(users, user)  # [B, d]
        v = nn.functional.embedding(items, item)  # [B, d]
        residual = ratings - self._biases(users, items)  # [B]
        if self.sharp:
            u = u + pgd_perturb(
                u.detach(),
                v.detach(),
                residual.detach(),
                steps=self._config.steps,
                step_size=self._config.step_size,
                radius=self._config.radius,
                inner=self._config.inner,
            )
        errors: Tensor = (u * v).sum(1) - residual
        return errors

    def _penalty(self) -> Tensor:
        initial = self._backbone.user.square().sum() + self._backbone.item.square().sum()
        return self._graph_config.penalty * initial + self._biases.penalty()

    @torch.no_grad()
    def _validation_loss(self) -> float:
        user, item = self._backbone()
        errors = self._errors(user, item, *self._validation)
        return math.sqrt(float(np.mean(errors.double().cpu().numpy() ** 2)))

    @torch.no_grad()
    def _judge(self, loss: float | None) -> None:
        if loss is not None and loss < self._lowest:
            self._lowest, self._waited = loss, 0
            self._best = [parameter.detach().clone() for parameter in self._parameters]
        elif loss is not None:
            self._waited += 1
        if self._waited >= self._graph_config.patience:
            self._done = self._last
        self._next_phase()

    @property
    def _last(self) -> int:
        return self._graph_config.sharp_epochs if self.sharp else self._graph_config.epochs

    def _next_phase(self) -> None:
        """Go from the plain loss to the sharp one, or end, where a phase is over."""
        if self._done < self._last:
            return
        if self.sharp or not (self._graph_config.sharp_epochs and self._config.steps):
            self.ended = True
            return
        self._restore()
        self._optimizer = self._new_optimizer()  # the moments are those of another loss
        self.sharp, self._done = True, 0
        self._best, self._lowest, self._waited = [], math.inf, 0
        if len(self._validation[2]):
            self._lowest = self._validation_loss()
            self._best = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def _restore(self) -> None:
        for parameter, best in zip(self._parameters, self._best, strict=False):
            parameter.copy_(best)


class _Biases(nn.Module):
    """Mean, user and item biases from their ridge solution on; zeros that stay without biases."""

    def __init__(self, training: Interactions, config: PretrainConfig) -> None:
        super().__init__()
        self._trained = config.biases
        self._penalties = config.user_bias_penalty, config.item_bias_penalty
        self.offset = 0.0
        if not config.biases:
            return
        start = fit_biases(
            training, user_penalty=config.user_bias_penalty, item_penalty=config.item_bias_penalty
        )
        self.user = nn.Parameter(torch.from_numpy(start.user.astype(np.float32)))  # [U]
        self.item = nn.Parameter(torch.from_numpy(start.item.astype(np.float32)))  # [I]
        self.offset = start.mean

    def forward(self, users: Tensor, items: Tensor) -> Tensor | float:
        """What does not depend on the vectors, `[B]`."""
        if not self._trained:
            return 0.0
        user, item = (
            nn.functional.embedding(index, bias[:, None])[:, 0]
            for index, bias in ((users, self.user), (items, self.item))
        )
        return self.offset + user + item

    def penalty(self) -> Tensor | float:
        """The penalty on all biases, `[]`."""
        if not self._trained:
            return 0.0
        user, item = self._penalties
        return user * self.user.square().sum() + item * self.item.square().sum()


def _columns(rows: Interactions, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Users, items and ratings, `[n]` each."""
    users, items, ratings = (
        torch.from_numpy(column).to(device) for column in (rows.users, rows.items, rows.ratings)
    )
    return users, items, ratings


def _held_out(
    interactions: Interactions, fraction: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Which ratings are held out, `[n]`; none of a user or an item that would have no other."""
    n = len(interactions)
    held_out = np.zeros(n, dtype=bool)
    held_out[generator.permutation(n)[: int(fraction * n)]] = True
    for index in (interactions.users, interactions.items):
        left = np.bincount(index[~held_out], minlength=int(index.max(initial=-1)) + 1)
        held_out &= left[index] > 0
    return held_out

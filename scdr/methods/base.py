"""What a method is, and what it leaves behind once fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scdr.checkpoints import Checkpoints, Stage
from scdr.data import CrossDomain, Interactions, TrainingData, source_users
from scdr.hyperparameters import SearchSpace
from scdr.methods.model_file import ids_from_tensor, ids_to_tensor, read_model, write_model
from scdr.methods.saving import describe, describe_fold_in, restore, restore_fold_in
from scdr.models import Biases, Factors, PretrainConfig, TargetItems, fit_biases
from scdr.models.fold_in import FoldIn, Histories
from scdr.models.mapping import MappingRows
from scdr.models.personal import PersonalMapping
from scdr.models.rating_distribution import POINTS, Optimise, RatingDistribution
from scdr.ops.threads import one_thread
from scdr.progress import Progress

_MAPPING, _FOLD_IN = "mapping.", "fold_in."

UNKNOWN = -1
"""Index of a user or item of which nothing is known."""


class PretrainedFactors(Protocol):
    """Where the pretrained factors of a domain come from, for methods that share them."""

    def get_or_train(
        self,
        interactions: Interactions,
        config: PretrainConfig,
        *,
        seed: tuple[int, ...],
        device: torch.device,
        train: Callable[[], Factors],
    ) -> Factors:
        """The factors that `train` gives, which depend on all the other arguments alone."""


class TrainAlways:
    """Shares nothing: each call trains."""

    def get_or_train(
        self,
        interactions: Interactions,
        config: PretrainConfig,
        *,
        seed: tuple[int, ...],
        device: torch.device,
        train: Callable[[], Factors],
    ) -> Factors:
        """Train."""
        return train()


@dataclass(frozen=True)
class FitContext:
    """What a fit needs beside data and hyper-parameters.

    Attributes:
        seed: of everything random.
        device: where to train.
        threads: cores to use; results do not depend on it.
        progress: told of stages and epochs.
        pretrained: asked for pretrained factors.
        checkpoints: where stages are kept, for a run to be resumed; None: nowhere.
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = 1
    progress: Progress = field(default_factory=Progress)
    pretrained: PretrainedFactors = field(default_factory=TrainAlways)
    checkpoints: Checkpoints | None = None
    _biases: dict[Interactions, Biases] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def biases(self, interactions: Interactions) -> Biases:
        """`fit_biases` of one domain, worked out once for all fits with this context."""
        if interactions not in self._biases:  # by identity
            self._biases[interactions] = fit_biases(interactions)
        return self._biases[interactions]

    @contextmanager
    def stage(self, name: str, epochs: int) -> Iterator[Stage]:
        """A stage of training, named as no other of the run.

        The block calls what it is given each epoch, and may loop over its `epochs` to be resumed.
        """
        with self.progress.stage(name, epochs) as advance:
            yield Stage(advance, name, self.checkpoints)

    @contextmanager
    def mapping_stage(self, epochs: int) -> Iterator[Stage]:
        """The stage that trains the mapping, timed."""
        with self.progress.timed("mapping"), self.stage("mapping", epochs) as stage:
            yield stage


@dataclass(frozen=True)
class TargetUsers:
    """The users of the target who have training ratings there.

    Attributes:
        users: int64 `[K]`, which users, ascending.
        vectors: float32 `[K, d_target]`: what stands in place of a mapped source vector.
    """

    users: NDArray[np.int64]
    vectors: Tensor

    @classmethod
    def of(cls, vectors: Tensor, training: Interactions) -> TargetUsers:
        """Those with a row in `training`, of vectors `[U_t, d_target]` of all."""
        users = np.unique(training.users).astype(np.int64)
        return cls(users, vectors[torch.from_numpy(users).to(vectors.device)])


@dataclass(frozen=True)
class FactorPredictor:
    """A fitted method: a vector for each source user, a mapping, and the target items.

    The linear prediction for source user s and target item i is
    `offsets[i] + <f_U(source_vectors[s]), vectors[i]>`. With a distribution, the prediction is a
    point of the distribution of ratings around it; without, it is the linear prediction itself.

    Attributes:
        source_vectors: `[U_s, d_source]` float32.
        mapping: f_U, or None for the identity: one network for all users, or a `PersonalMapping`.
        items: target items, the last one standing for an item never seen.
        distribution: of a rating around its linear prediction; None where the method has none.
        optimise: which point of the distribution to predict.
        fold_in: what makes source vectors of the histories of users whom training has not seen;
            None where the method has no place for them.
        target_users: users of the target and their own vectors; None where there are none.
    """

    source_vectors: Tensor
    mapping: nn.Module | None
    items: TargetItems
    distribution: RatingDistribution | None = None
    optimise: Optimise = "rmse"
    fold_in: FoldIn | None = None
    target_users: TargetUsers | None = None

    def predict(
        self,
        users: NDArray[np.integer],
        items: NDArray[np.integer],
        *,
        optimise: Optimise | None = None,
    ) -> NDArray[np.float32]:
        """Predicted ratings, not clipped.

        Args:
            users: `[n]` source user indices; -1 for a user of whom nothing is known.
            items: `[n]` target item indices; -1 for an item never seen.
            optimise: another point of the distribution than the predictor's own; no matter where
                there is no distribution, or for a user of whom nothing is known.

        Returns:
            `[n]` float32.

        Raises:
            ValueError: lengths that differ or an index out of range.
        """
        result = self._linear_predictions(users, items)
        if self.distribution is not None:
            known = np.asarray(users) != UNKNOWN
            result[known] = self.distribution.point(result[known], optimise or self.optimise)
        return result

    def deviation(
        self, users: NDArray[np.integer], items: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Standard deviation of the ratings around their mean, `[n]` float32.

        Raises:
            ValueError: as `predict`, or the method has no distribution.
        """
        linear = self._linear_predictions(users, items)
        return self._known_distribution().deviation(linear).astype(np.float32)

    def interval(
        self, users: NDArray[np.integer], items: NDArray[np.integer], coverage: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Lower and upper ends, `[n]` float32, that hold a rating with this probability or more.

        Raises:
            ValueError: as `predict`, or the method has no distribution.
        """
        linear = self._linear_predictions(users, items)
        low, high = self._known_distribution().interval(linear, coverage)
        return low.astype(np.float32), high.astype(np.float32)

    def probability(
        self,
        users: NDArray[np.integer],
        items: NDArray[np.integer],
        low: NDArray[np.floating],
        high: NDArray[np.floating],
    ) -> NDArray[np.float64]:
        """Probability `[n]` of a rating from low to high, both `[n]` and both included.

        Raises:
            ValueError: as `predict`, or the method has no distribution.
        """
        linear = self._linear_predictions(users, items)
        return self._known_distribution().probability(linear, low, high)

    def _known_distribution(self) -> RatingDistribution:
        if self.distribution is None:
            raise ValueError("this method predicts numbers alone, without a distribution")
        return self.distribution

    @one_thread()
    @torch.no_grad()
    def _linear_predictions(
        self, users: NDArray[np.integer], items: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        n_users, n_items = len(self.source_vectors), len(self.items.offsets) - 1
        if len(users) != len(items):
            raise ValueError(f"users has {len(users)} entries, items has {len(items)}")
        user = _indices("users", users, n_users)  # [n]
        item = _indices("items", items, n_items)  # [n]
        item = torch.where(item == UNKNOWN, n_items, item).to(self.items.offsets.device)
        known = (user != UNKNOWN).to(item.device)
        result = self.items.priors[item].clone()
        rows, distinct = user.to(item.device)[known], item[known]
        if len(rows):
            asked, position = torch.unique(rows, return_inverse=True)
            mapped = self.user_vectors(asked)  # [K, d_target]
            result[known] = self.items.offsets[distinct] + (
                mapped[position] * self.items.vectors[distinct]
            ).sum(1)
        return result.cpu().numpy()

    def user_vectors(self, users: Tensor) -> Tensor:
        """`f_U(source_vectors[users])`, `[K, d_target]`."""
        return self.map_vectors(self.source_vectors[users], users)

    def map_vectors(self, vectors: Tensor, users: Tensor) -> Tensor:
        """`f_U(vectors)`, `[K, d_target]`, differentiable in the vectors.

        Args:
            vectors: `[K, d_source]`, such as users' vectors with a perturbation added.
            users: `[K]` int64, the source user of each vector. It matters only to a
                `PersonalMapping`, which maps with this user's bridge whatever the vector.
        """
        if self.mapping is None:
            return vectors
        personal = isinstance(self.mapping, PersonalMapping)
        mapped: Tensor = self.mapping(vectors, users) if personal else self.mapping(vectors)
        return mapped

    @one_thread()
    @torch.no_grad()
    def fold_in_vectors(self, histories: Histories) -> Tensor:
        """`f_U` of the source vectors that histories give, `[K, d_target]`.

        A user's own bridge is made of the history too.

        Raises:
            ValueError: the method can't fold users in.
        """
        if self.fold_in is None:
            raise ValueError("this method has no place for users whom training has not seen")
        vectors = torch.from_numpy(self.fold_in.vectors(histories)).to(self.source_vectors.device)
        if isinstance(self.mapping, PersonalMapping):
            return self.mapping.map_new(vectors, histories)
        return vectors if self.mapping is None else self.mapping(vectors)

    def save(self, path: Path, *, domains: CrossDomain, metadata: Mapping[str, Any]) -> None:
        """Write everything that predictions need as safetensors, with a checksum.

        Args:
            path: file to write.
            domains: the pair the method was fitted on, for the ids of its users and items.
            metadata: anything JSON holds.

        Raises:
            TypeError: a mapping or a fold-in of a kind that can't be saved.
        """
        tensors = {
            "user_ids": ids_to_tensor(domains.source.user_ids),
            "item_ids": ids_to_tensor(domains.target.item_ids),
            "source_vectors": self.source_vectors,
            "items.vectors": self.items.vectors,
            "items.offsets": self.items.offsets,
            "items.priors": self.items.priors,
        }
        mapping, weights = describe(self.mapping)
        tensors |= {_MAPPING + name: value for name, value in weights.items()}
        fold_in, arrays = describe_fold_in(self.fold_in)
        tensors |= {_FOLD_IN + name: torch.from_numpy(value) for name, value in arrays.items()}
        if self.fold_in is not None:
            tensors["source_item_ids"] = ids_to_tensor(domains.source.item_ids)
        if self.target_users is not None:
            ids = domains.target.user_ids[self.target_users.users]
            tensors["target_user_ids"] = ids_to_tensor(ids)
            tensors["target_vectors"] = self.target_users.vectors
        header = {
            "metadata": dict(metadata),
            "mapping": mapping,
            "fold_in": fold_in,
            "distribution": self.distribution,
            "optimise": self.optimise,
        }
        write_model(path, header, tensors)

    @classmethod
    def load(cls, path: Path) -> SavedModel:
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, damaged or not a model of this package.
        """
        header, tensors = read_model(path)

        def under(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }

        def ids(name: str) -> NDArray[np.object_]:
            return ids_from_tensor(tensors[name]) if name in tensors else np.zeros(0, dtype=object)

        own, spread = tensors.get("target_vectors"), header["distribution"]
        predictor = cls(
            source_vectors=tensors["source_vectors"],
            mapping=restore(header["mapping"], under(_MAPPING)),
            items=TargetItems(
                tensors["items.vectors"], tensors["items.offsets"], tensors["items.priors"]
            ),
            distribution=None if spread is None else RatingDistribution.from_fields(spread),
            optimise=header["optimise"],
            fold_in=restore_fold_in(header["fold_in"], under(_FOLD_IN)),
            target_users=None if own is None else TargetUsers(np.arange(len(own)), own),
        )
        return SavedModel(
            predictor=predictor,
            user_ids=ids("user_ids"),
            item_ids=ids("item_ids"),
            source_item_ids=ids("source_item_ids"),
            target_user_ids=ids("target_user_ids"),
            metadata=header["metadata"],
        )


@dataclass(frozen=True)
class SavedModel:
    """What a model file holds.

    Attributes:
        predictor: the fitted method.
        user_ids: ids of the source users `[U_s]`.
        item_ids: ids of the target items `[I]`.
        source_item_ids: ids of the source items `[I_s]`; none where users can't be folded in.
        target_user_ids: ids of `predictor.target_users`, `[K]`.
        metadata: as given to `save`.
    """

    predictor: FactorPredictor
    user_ids: NDArray[np.object_]
    item_ids: NDArray[np.object_]
    source_item_ids: NDArray[np.object_]
    target_user_ids: NDArray[np.object_]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A row of the paper's Table II, or a control.

    Attributes:
        name: as on the command line.
        title: as in tables.
        citation: where it comes from.
        cross_domain: whether it uses the source domain (Table IV).
        mapping_based: whether it maps user vectors between domains (Table IV).
        presets: hyper-parameters by preset name, "default" and "paper" at least.
        fit: from training data and hyper-parameters to a predictor. It never sees a test user's
            target ratings: they are not in `TrainingData`.
        search_space: what a hyper-parameter search may vary, by dotted name, as in
            "mapping.learning_rate"; everything else stays as the preset has it.
    """

    name: str
    title: str
    citation: str
    cross_domain: bool
    mapping_based: bool
    presets: Mapping[str, Any]
    fit: Callable[[TrainingData, Any, FitContext], FactorPredictor]
    search_space: SearchSpace = field(default_factory=dict)

    @property
    def has_backbone(self) -> bool:
        """Whether its factors come from a backbone that can be chosen: a section `pretrain`."""
        return isinstance(getattr(self.presets["paper"], "pretrain", None), PretrainConfig)

    @property
    def points(self) -> tuple[Optimise | None, ...]:
        """What its hyper-parameter `optimise` chooses from; None alone where it has no such."""
        has_choice = getattr(self.presets["paper"], "optimise", None) in POINTS
        return tuple(POINTS) if has_choice else (None,)


def training_rows(data: TrainingData, device: torch.device) -> MappingRows:
    """The target training ratings of training users."""
    return _rows_of(data.train_pairs, data, device, validation=False)


def validation_rows(data: TrainingData, device: torch.device) -> MappingRows:
    """The target ratings of validation users."""
    return _rows_of(data.validation_pairs, data, device, validation=True)


def _rows_of(
    pairs: NDArray[np.int32], data: TrainingData, device: torch.device, *, validation: bool
) -> MappingRows:
    rows = data.validation if validation else data.target
    rows = rows.take(np.isin(rows.users, pairs[:, 1]))
    return MappingRows(
        users=torch.from_numpy(source_users(pairs, rows).astype(np.int64)).to(device),
        items=torch.from_numpy(rows.items.astype(np.int64)).to(device),
        ratings=torch.from_numpy(rows.ratings).to(device),
    )


def _indices(name: str, values: NDArray[np.integer], size: int) -> Tensor:
    result = torch.from_numpy(np.asarray(values).astype(np.int64))
    if len(result) and not (int(result.min()) >= UNKNOWN and int(result.max()) < size):
        raise ValueError(f"{name} holds an index outside -1 to {size - 1}")
    return result

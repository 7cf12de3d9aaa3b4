"""What a method is, and what it leaves behind once fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import save as serialise
from torch import Tensor, nn

from scdr.checkpoints import Checkpoints, Stage
from scdr.data import Interactions, TrainingData, source_users
from scdr.errors import InputError
from scdr.hyperparameters import SearchSpace
from scdr.methods.saving import describe, restore
from scdr.models import Biases, Factors, PretrainConfig, TargetItems, fit_biases
from scdr.models.mapping import MappingRows
from scdr.models.personal import PersonalMapping
from scdr.models.rating_distribution import Optimise, RatingDistribution
from scdr.ops.threads import one_thread
from scdr.progress import Progress

_PREFIX = "mapping."

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
    """

    source_vectors: Tensor
    mapping: nn.Module | None
    items: TargetItems
    distribution: RatingDistribution | None = None
    optimise: Optimise = "rmse"

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

    def save(
        self,
        path: Path,
        *,
        user_ids: NDArray[np.object_],
        item_ids: NDArray[np.object_],
        metadata: Mapping[str, Any],
    ) -> None:
        """Write everything that predictions need as safetensors, metadata as JSON in its header.

        Args:
            path: file to write.
            user_ids: ids of the source users `[U_s]`.
            item_ids: ids of the target items `[I]`.
            metadata: anything JSON holds.

        Raises:
            TypeError: a mapping of a kind that can't be saved.
        """
        tensors = {
            "user_ids": _bytes_of(user_ids),
            "item_ids": _bytes_of(item_ids),
            "source_vectors": self.source_vectors,
            "items.vectors": self.items.vectors,
            "items.offsets": self.items.offsets,
            "items.priors": self.items.priors,
        }
        description, weights = describe(self.mapping)
        tensors |= {_PREFIX + name: value for name, value in weights.items()}
        header = {
            "metadata": dict(metadata),
            "mapping": description,
            "distribution": self.distribution,
            "optimise": self.optimise,
        }
        apart = {
            name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()
        }
        data = serialise(apart, metadata={"scdr": _json(header)})
        path.write_bytes(data)

    @classmethod
    def load(cls, path: Path) -> SavedModel:
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, damaged or not a model of this package.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                header = orjson.loads((file.metadata() or {})["scdr"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, KeyError, safetensors.SafetensorError, orjson.JSONDecodeError) as error:
            raise InputError(
                f"not a readable scdr model: {error}",
                where=str(path),
                fix="give the model.safetensors of a finished run",
            ) from error
        items = TargetItems(
            tensors["items.vectors"], tensors["items.offsets"], tensors["items.priors"]
        )
        weights = {
            name.removeprefix(_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(_PREFIX)
        }
        mapping = restore(header["mapping"], weights)
        return SavedModel(
            predictor=cls(
                tensors["source_vectors"],
                mapping,
                items,
                _restore_distribution(header["distribution"]),
                header["optimise"],
            ),
            user_ids=_ids_of(tensors["user_ids"]),
            item_ids=_ids_of(tensors["item_ids"]),
            metadata=header["metadata"],
        )


@dataclass(frozen=True)
class SavedModel:
    """What a model file holds.

    Attributes:
        predictor: the fitted method.
        user_ids: ids of the source users `[U_s]`.
        item_ids: ids of the target items `[I]`.
        metadata: as given to `save`.
    """

    predictor: FactorPredictor
    user_ids: NDArray[np.object_]
    item_ids: NDArray[np.object_]
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


def _bytes_of(ids: NDArray[np.object_]) -> Tensor:
    """Ids as the bytes of a JSON list, the one form that keeps any string in a tensor file."""
    return torch.frombuffer(bytearray(orjson.dumps(ids.tolist())), dtype=torch.uint8)


def _ids_of(data: Tensor) -> NDArray[np.object_]:
    return np.array(orjson.loads(data.numpy().tobytes()), dtype=object)


def _json(values: dict[str, Any]) -> str:
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _restore_distribution(values: dict[str, Any] | None) -> RatingDistribution | None:
    if values is None:
        return None
    arrays = {k: np.array(v, dtype=np.float64) for k, v in values.items() if isinstance(v, list)}
    return RatingDistribution(**values | arrays)


def _indices(name: str, values: NDArray[np.integer], size: int) -> Tensor:
    result = torch.from_numpy(np.asarray(values).astype(np.int64))
    if len(result) and not (int(result.min()) >= UNKNOWN and int(result.max()) < size):
        raise ValueError(f"{name} holds an index outside -1 to {size - 1}")
    return result

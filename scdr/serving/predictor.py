"""`Predictor`: a trained model, asked by id or by history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from scdr.methods.base import FactorPredictor, SavedModel
from scdr.models.fold_in import Histories
from scdr.serving.answers import (
    KINDS,
    History,
    Prediction,
    Recommendation,
    User,
    coded_histories,
    one_user,
)
from scdr.serving.index import ItemIndex

MODEL = "model.safetensors"
_USERS_AT_ONCE = 8_192
_USERS_FOR_NORM = 1_024
_RATINGS_AT_ONCE = 65_536

Items = Sequence[str] | Sequence[Sequence[str]]
Kinds = NDArray[np.int8]


class Predictor:
    """A trained model. It may be used by several threads at once.

    A user id is looked for among the users of the target first, then among those of the source.
    Any other user is answered by a history, folded into the source as
    :mod:`scdr.models.fold_in` says, and where there is none by what is known of the items.

    Usage:

        predictor = Predictor.load("runs/mine")
        predictor.recommend("A2SUAM1J3GNN3B", 10)
        predictor.recommend({"0001055178": 5.0, "0001473123": 2.0}, 10, exclude=["B00000053X"])
        predictor.predict(["A2SUAM1J3GNN3B", None], ["B00000053X", "B000000W5L"])

    Attributes:
        metadata: of the model file: its method, the range of ratings, whether it clips.
        item_ids: ids of the target items `[I]`.
        source_item_ids: ids of the source items `[I_s]`; none where users can't be folded in.
    """

    def __init__(self, saved: SavedModel) -> None:
        """Prepare a loaded model; `load` does it all."""
        model = saved.predictor
        self._model: FactorPredictor = model
        self.metadata, self.item_ids = saved.metadata, saved.item_ids
        self.source_item_ids = saved.source_item_ids
        self._items = _index(saved.item_ids)
        self._source_items = _index(saved.source_item_ids)
        self._source_users = _index(saved.user_ids)
        self._target_users = _index(saved.target_user_ids)
        self._index = ItemIndex(
            model.items.vectors[:-1], model.items.offsets[:-1], user_norm=self._user_norm()
        )
        self._by_prior = np.argsort(-model.items.priors[:-1].numpy(), kind="stable")

    @classmethod
    def load(cls, path: str | Path) -> Predictor:
        """Load a run folder or the model file in it.

        Raises:
            InputError: there is no model, or it is damaged.
        """
        return cls(FactorPredictor.load(model_path(path)))

    @cached_property
    def item_names(self) -> pl.Series:
        """`item_ids` as a column."""
        return pl.Series(self.item_ids, dtype=pl.String)

    @property
    def folds_in(self) -> bool:
        """Whether the method has a place for users whom training has not seen."""
        return self._model.fold_in is not None

    @overload
    def predict(
        self, user: str | Mapping[str, float] | None, items: Sequence[str]
    ) -> Prediction: ...

    @overload
    def predict(self, user: list[Any], items: Items) -> list[Prediction]: ...

    def predict(self, user: User | Sequence[User], items: Items) -> Prediction | list[Prediction]:
        """Predict ratings of items.

        Args:
            user: a user id, a history (a mapping from source item ids to ratings, or pairs of
                them, oldest first), or None for a user of whom nothing is known; or a list of such
                users.
            items: target item ids; for a list of users either ids for all of them or a list of ids
                for each. An id that training has not seen gets what is expected of any item.

        Returns:
            A prediction, or a list of them for a list of users.

        Raises:
            ValueError: an argument is not as described; it is named.
        """
        if one_user(user):
            alone: Any = user
            return self._predict([alone], [_ids("items", items)])[0]
        users: list[Any] = list(user or ())
        return self._predict(users, _for_each("items", items, len(users)))

    @overload
    def recommend(
        self,
        user: str | Mapping[str, float] | None,
        k: int = 20,
        exclude: Sequence[str] = (),
    ) -> Recommendation: ...

    @overload
    def recommend(
        self, user: list[Any], k: int = 20, exclude: Items = ()
    ) -> list[Recommendation]: ...

    def recommend(
        self, user: User | Sequence[User], k: int = 20, exclude: Items = ()
    ) -> Recommendation | list[Recommendation]:
        """The k best of all target items, by the linear prediction; equal ones by id.

        Args:
            user: as of `predict`.
            k: how many items, 1 or more.
            exclude: ids of target items to leave out, such as those the user has rated; for a list
                of users either ids for all of them or a list of ids for each. Ids that training has
                not seen do not matter.

        Returns:
            A recommendation, or a list of them for a list of users.

        Raises:
            ValueError: an argument is not as described; it is named.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(f"k is {k!r}; it must be a whole number, 1 or more")
        k = min(int(k), len(self.item_ids))
        if one_user(user):
            alone: Any = user
            return self._recommend([alone], k, [_ids("exclude", exclude)])[0]
        users: list[Any] = list(user or ())
        return self._recommend(users, k, _for_each("exclude", exclude, len(users)))

    def _predict(self, users: Sequence[User], items: Sequence[Sequence[str]]) -> list[Prediction]:
        vectors, kinds = self._vectors(users)
        asked = [self._codes(ids, self._items) for ids in items]
        owner = np.repeat(np.arange(len(users)), [len(codes) for codes in asked])
        codes = np.concatenate([np.zeros(0, dtype=np.int64), *asked])
        ratings = self.ratings(vectors, kinds, owner, codes)
        ends = np.cumsum([len(codes) for codes in asked])
        return [
            Prediction(ratings[end - len(codes) : end], codes >= 0, KINDS[kind])
            for end, codes, kind in zip(ends, asked, kinds, strict=True)
        ]

    def _recommend(
        self, users: Sequence[User], k: int, exclude: Sequence[Sequence[str]]
    ) -> list[Recommendation]:
        vectors, kinds = self._vectors(users)
        left_out = [self._codes(ids, self._items) for ids in exclude]
        best, ratings = self.topk(vectors, kinds, k, [codes[codes >= 0] for codes in left_out])
        return [
            Recommendation(self.item_ids[row[row >= 0]].tolist(), given[row >= 0], KINDS[kind])
            for row, given, kind in zip(best, ratings, kinds, strict=True)
        ]

    # What follows is over indices, for the commands that answer many users.

    def _vectors(self, users: Sequence[User]) -> tuple[Tensor, Kinds]:
        """As `vectors`, of users by id or history."""
        ids = [user if isinstance(user, str) else None for user in users]
        given: list[History] = [
            () if user is None or isinstance(user, str) else user for user in users
        ]
        return self.vectors(ids, coded_histories(given, self._source_items))

    def vectors(self, ids: Sequence[str | None], histories: Histories) -> tuple[Tensor, Kinds]:
        """Vectors that multiply the items', `[K, d]` float32, and what each is made of.

        Args:
            ids: of the users `[K]`, or None.
            histories: of the users `[K]`, for those whose id is not known.

        Returns:
            Vectors, zeros for a user of whom nothing is known, and int8 `[K]`, indices of `KINDS`.
        """
        own = self._codes(ids, self._target_users)
        source = self._codes(ids, self._source_users)
        folded = (histories.counts > 0) & self.folds_in
        kinds = np.select([own >= 0, source >= 0, folded], [3, 2, 1], 0).astype(np.int8)
        vectors = torch.zeros(len(ids), self._model.items.vectors.shape[1])
        if self._model.target_users is not None:
            rows = np.flatnonzero(kinds == 3)
            if len(rows):
                vectors[rows] = self._model.target_users.vectors[own[rows]]
        rows = np.flatnonzero(kinds == 2)
        if len(rows):
            vectors[rows] = self._mapped(torch.from_numpy(source[rows]))
        rows = np.flatnonzero(kinds == 1)
        if len(rows):
            some = histories if len(rows) == len(histories) else histories.take(rows)
            vectors[rows] = self._model.fold_in_vectors(some)
        return vectors, kinds

    def ratings(
        self,
        vectors: Tensor,
        kinds: Kinds,
        owner: NDArray[np.integer[Any]],
        items: NDArray[np.integer[Any]],
    ) -> NDArray[np.float32]:
        """Predicted ratings `[n]`.

        Args:
            vectors: `[K, d]`, as `vectors` gives them.
            kinds: `[K]`.
            owner: `[n]`, the user of each rating, 0 to K - 1.
            items: `[n]`, target items; -1 for one that training has not seen.
        """
        ratings = np.zeros(len(items), dtype=np.float32)
        for start in range(0, len(items), _RATINGS_AT_ONCE):
            some = slice(start, start + _RATINGS_AT_ONCE)
            ratings[some] = self._some_ratings(vectors, kinds, owner[some], items[some])
        return ratings

    def _some_ratings(
        self,
        vectors: Tensor,
        kinds: Kinds,
        owner: NDArray[np.integer[Any]],
        items: NDArray[np.integer[Any]],
    ) -> NDArray[np.floating[Any]]:
        table = self._model.items
        user, item = torch.from_numpy(owner), torch.from_numpy(items)
        ratings = (table.offsets[item] + (vectors[user] * table.vectors[item]).sum(1)).numpy()
        known = kinds[owner] > 0
        ratings[~known] = table.priors[item[torch.from_numpy(~known)]].numpy()
        if self._model.distribution is not None:
            ratings[known] = self._model.distribution.point(ratings[known], self._model.optimise)
        if self.metadata.get("clip"):
            ratings = np.clip(ratings, *self.metadata["rating_range"])
        return ratings

    def topk(
        self,
        vectors: Tensor,
        kinds: Kinds,
        k: int,
        exclude: Sequence[NDArray[np.int64]] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best items `[K, k]`, -1 where none is left, and the ratings predicted for them.

        Args:
            vectors: `[K, d]`, as `vectors` gives them.
            kinds: `[K]`.
            k: items for each user.
            exclude: K arrays of items to leave out, or None for none.
        """
        best = np.full((len(kinds), k), -1, dtype=np.int64)
        known, alone = np.flatnonzero(kinds > 0), np.flatnonzero(kinds == 0)
        if len(known):
            everyone = len(known) == len(kinds)
            some = vectors if everyone else vectors[known]
            left_out = exclude if everyone or exclude is None else [exclude[int(u)] for u in known]
            best[known] = self._index.topk(some, k, left_out)[1]
        for user in alone:
            out = np.zeros(0, dtype=np.int64) if exclude is None else exclude[int(user)]
            first = self._by_prior[: k + len(out)]
            first = first[~np.isin(first, out)][:k]
            best[user, : len(first)] = first
        owner = np.repeat(np.arange(len(kinds)), k)
        ratings = self.ratings(vectors, kinds, owner, best.ravel()).reshape(best.shape)
        return best, ratings

    def _mapped(self, users: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [self._model.user_vectors(some) for some in users.split(_USERS_AT_ONCE)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _user_norm(self) -> float:
        """The median length of a mapped source vector, over users from all of them."""
        n = len(self._source_users)
        step = max(n // _USERS_FOR_NORM, 1)
        return float(self._mapped(torch.arange(0, n, step)).norm(dim=1).median()) if n else 1.0

    @staticmethod
    def _codes(ids: Sequence[str | None], known: Mapping[str, int]) -> NDArray[np.int64]:
        try:
            found = (known.get(name, -1) for name in ids)  # type: ignore[arg-type]
            return np.fromiter(found, dtype=np.int64, count=len(ids))
        except TypeError as error:  # not hashable
            raise ValueError("ids must be strings") from error


def model_path(path: str | Path) -> Path:
    """The model file of a run folder, or the path itself."""
    path = Path(path)
    return path / MODEL if path.is_dir() else path


def _index(ids: NDArray[np.object_]) -> dict[str, int]:
    return {name: index for index, name in enumerate(ids.tolist())}


def _ids(name: str, ids: Any) -> Sequence[str]:
    """Ids for one user.

    Raises:
        ValueError: not a list of strings.
    """
    if isinstance(ids, str) or not all(isinstance(one, str) for one in ids):
        raise ValueError(f"{name} must be a list of item ids, which are strings")
    return ids  # type: ignore[no-any-return]


def _for_each(name: str, ids: Any, users: int) -> list[Sequence[str]]:
    """Ids for each of some users.

    Raises:
        ValueError: neither ids nor a list of them for each user.
    """
    if not isinstance(ids, str) and all(isinstance(one, str) for one in ids):
        return [ids] * users
    if isinstance(ids, str) or len(ids) != users:
        raise ValueError(f"{name} must be item ids for all users, or a list of them for each")
    return [_ids(name, one) for one in ids]

"""What a request holds and what it is answered with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scdr.models.fold_in import Histories

AnsweredAs = Literal["target_user", "source_user", "folded_in", "items_alone"]
"""From what a user was answered: the user's own ratings of the target; ratings of the source that
training has seen; a source history folded in; or nothing, so that the items speak alone."""

KINDS: tuple[AnsweredAs, ...] = ("items_alone", "folded_in", "source_user", "target_user")

History: TypeAlias = Mapping[str, float] | Sequence[tuple[str, float]]
"""Ratings of source items, oldest first: a mapping from ids to ratings, or pairs of them."""

User: TypeAlias = str | History | None
"""A user id, a history, or None for a user of whom nothing is known."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Ratings predicted for one user.

    Attributes:
        ratings: float32 `[n]`, one for each item asked for.
        known: bool `[n]`, whether the item is one of the target that was trained on.
        answered_as: what the user was answered from.
    """

    ratings: NDArray[np.float32]
    known: NDArray[np.bool_]
    answered_as: AnsweredAs


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The best items of one user.

    Attributes:
        items: ids, best first; fewer than asked for where no more are left.
        ratings: float32, the rating predicted for each.
        answered_as: what the user was answered from.
    """

    items: list[str]
    ratings: NDArray[np.float32]
    answered_as: AnsweredAs


def one_user(user: object) -> bool:
    """Whether an argument is one user, not a batch of them: a string, None, a mapping, or pairs."""
    if user is None or isinstance(user, str | Mapping):
        return True
    if not isinstance(user, Sequence):
        raise ValueError(f"user is a {type(user).__name__}; it must be an id, a history or a list")
    return len(user) > 0 and all(isinstance(entry, tuple) for entry in user)


def coded_histories(histories: Iterable[History], items: Mapping[str, int]) -> Histories:
    """Histories over known source items, of a pair that is there twice the last.

    Args:
        histories: as users give them.
        items: index of each source item by id; other items are left out.

    Raises:
        ValueError: a rating is not a finite number, or a history is of another form.
    """
    counts, codes, ratings = [], list[int](), list[float]()
    for history in histories:
        try:
            pairs = history.items() if isinstance(history, Mapping) else history
            rated = {items[item]: float(rating) for item, rating in pairs if item in items}
        except (TypeError, ValueError) as error:
            raise ValueError(
                "user holds a history that is neither a mapping from item ids to ratings nor pairs "
                "of them"
            ) from error
        counts.append(len(rated))
        codes += rated
        ratings += rated.values()
    if not all(map(math.isfinite, ratings)):
        raise ValueError("user holds a history with a rating that is not finite")
    return Histories(
        starts=np.cumsum([0, *counts]),
        items=np.array(codes, dtype=np.int64),
        ratings=np.array(ratings, dtype=np.float64),
    )

"""Which column is what, and the batch of four columns that every reader yields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scdr.errors import InputError

ROLES = ("user", "item", "rating", "time")
Columns = Mapping[str, str | int | None]

# In order of preference: a file may hold several names of one role (asin and parent_asin).
_NAMES = {
    "user": "user userid uid u reviewerid customerid memberid profileid username reviewer customer",
    "item": "item itemid iid i parentasin asin productid product movieid movie bookid book isbn"
    " musicid songid trackid albumid artistid gameid businessid gmapid",
    "rating": "rating ratings score overall stars rate star starrating ratingvalue r",
    "time": "timestamp time unixreviewtime unixtime ratingtime ratedat datetime date ts t",
}
NAMES = {role: tuple(names.split()) for role, names in _NAMES.items()}


def normalise(name: str) -> str:
    """Bring a column name to the form of ``NAMES``: ``"User_ID:token"`` to ``"userid"``."""
    return name.split(":")[0].strip().strip('"').lower().translate(str.maketrans("", "", "_- ."))


def is_known(name: str) -> bool:
    """Tell whether a column name is one that some dump uses for a user, item, rating or time."""
    return any(normalise(name) in names for names in NAMES.values())


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some rows as they were read, before any check.

    Attributes:
        frame: columns user, item (strings), rating, time (numbers or strings); null is missing.
        lines: integers [n], the number of each row in its file, from 1.
        reasons: why a row can't be read at all, by its position in the frame.
    """

    frame: pl.DataFrame
    lines: NDArray[np.integer]
    reasons: Mapping[int, str] = field(default_factory=dict)


def columns_by_name(
    names: Sequence[str], columns: Columns | None, *, where: str, optional: str = "time"
) -> dict[str, str]:
    """Find the user, item, rating and time column among named columns.

    Args:
        names: the header.
        columns: the user's own choice by role, a name or a position from 0; ``time`` may be None
            to ignore times. Roles left out are found by the names that common dumps use.
        where: file and line of the header, for the message.
        optional: the role that may be missing.

    Raises:
        InputError: a chosen column does not exist, or a role has none.
    """
    found: dict[str, str] = {}
    chosen = check_roles(columns)
    for role in ROLES:
        if role in chosen:
            choice = chosen[role]
            if choice is None:
                continue
            found[role] = _existing(names, choice, role, where)
            continue
        by_normal = {normalise(name): name for name in reversed(names)}
        match = next((by_normal[name] for name in NAMES[role] if name in by_normal), None)
        if match is not None:
            found[role] = match
        elif role != optional:
            raise InputError(
                f"no {role} column among {', '.join(names)}",
                where=where,
                fix=f"name it with columns (--source-columns, --target-columns), as in {role}=NAME",
            )
    check_distinct(found, where)
    return found


def check_distinct(found: Mapping[str, str | int], where: str) -> None:
    """Refuse one column in two roles.

    Raises:
        InputError: naming the two roles.
    """
    roles: dict[str | int, str] = {}
    for role, column in found.items():
        if column in roles:
            raise InputError(
                f"column {column!r} is both {roles[column]} and {role}",
                where=where,
                fix="name both with columns",
            )
        roles[column] = role


def check_roles(columns: Columns | None) -> Columns:
    """Return ``columns`` (empty for None), refusing unknown roles and a None but for time.

    Raises:
        InputError: a key is not a role, or a role other than time is None.
    """
    for role, choice in (columns or {}).items():
        if role not in ROLES:
            raise InputError(f"unknown column role {role!r}", fix=f"use {', '.join(ROLES)}")
        if choice is None and role != "time":
            raise InputError(f"columns gives no {role} column", fix="give its name or position")
    return columns or {}


def _existing(names: Sequence[str], choice: str | int, role: str, where: str) -> str:
    """Return the name of the chosen column, given by name or position."""
    if isinstance(choice, int):
        if not 0 <= choice < len(names):
            raise InputError(
                f"no column {choice} for the {role}: there are {len(names)}",
                where=where,
                fix="positions count from 0",
            )
        return names[choice]
    if choice not in names:
        raise InputError(
            f"no column {choice!r} for the {role}",
            where=where,
            fix=f"the columns are {', '.join(names)}",
        )
    return choice

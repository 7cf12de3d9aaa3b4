"""Why two domains share no user, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scdr.data.interactions import Interactions
from scdr.data.scenario import CrossDomain, common
from scdr.errors import InputError

# Of the smaller vocabulary, from how large a common part on a cause is believed.
BELIEVED_SHARE = 0.01
SAMPLE_IDS = 2000

Ids = NDArray[np.object_]
Cause = tuple[str, str]


def preflight(domains: CrossDomain) -> None:
    """Check that the two domains share users.

    Raises:
        InputError: there is no overlap user. The message says why, as far as the data show it:
            ids that differ in case, blanks or zero padding; swapped columns; dumps of different
            years.
    """
    if len(domains.overlap):
        return
    for find in (_differently_written, _swapped_columns, _different_kinds, _different_times):
        cause = find(domains.source, domains.target)
        if cause is not None:
            why, fix = cause
            raise InputError(f"no overlap users: {why}", where=domains.name, fix=fix)
    source, target = domains.source, domains.target
    raise InputError(
        f"no overlap users: none of {source.n_users} source users "
        f"(as {source.user_ids[0]!r}) is among {target.n_users} target users "
        f"(as {target.user_ids[0]!r})",
        where=domains.name,
        fix="give two dumps with the same user ids; a smaller core may keep more users",
    )


def _shared(first: Ids, second: Ids) -> int:
    """Count of common ids, 0 where they are too few to mean anything."""
    count = len(common(first, second))
    return count if count >= BELIEVED_SHARE * min(len(first), len(second)) else 0


def _rewritten(ids: Ids, rewrite: Callable[[pl.Series], pl.Series]) -> Ids:
    return rewrite(pl.Series(ids, dtype=pl.String)).unique().to_numpy().astype(object)


def _differently_written(source: Interactions, target: Interactions) -> Cause | None:
    """User ids that agree once they are written alike."""
    rewrites: dict[str, Callable[[pl.Series], pl.Series]] = {
        "surrounding blanks": lambda ids: ids.str.strip_chars(),
        "upper and lower case": lambda ids: ids.str.to_lowercase(),
        "zero padding": lambda ids: ids.str.strip_chars_start("0"),
        "blanks, case and zero padding": lambda ids: (
            ids.str.strip_chars().str.to_lowercase().str.strip_chars_start("0")
        ),
    }
    for difference, rewrite in rewrites.items():
        count = _shared(_rewritten(source.user_ids, rewrite), _rewritten(target.user_ids, rewrite))
        if count:
            return (
                f"{count} user ids differ only in {difference}",
                "write the ids of both files alike",
            )
    return None


def _swapped_columns(source: Interactions, target: Interactions) -> Cause | None:
    """Ids of users that stand in the item column."""
    counts = {
        "source": _shared(source.item_ids, target.user_ids),
        "target": _shared(source.user_ids, target.item_ids),
        "both": _shared(source.item_ids, target.item_ids),
    }
    # Items of both files may well share ids such as 1, 2, 3; there it proves nothing where the
    # users could have shared them too.
    if counts["both"] and not _users_look_swapped(source, target):
        counts["both"] = 0
    which = max(counts, key=lambda name: counts[name])
    if not counts[which]:
        return None
    explanations = {
        "source": f"{counts['source']} source items are target users: the user and item columns "
        "of the source look swapped",
        "target": f"{counts['target']} source users are target items: the user and item columns "
        "of the target look swapped",
        "both": f"{counts['both']} items are common: the user and item columns of both domains "
        "look swapped",
    }
    fix = "name the columns (--source-columns, --target-columns), as in user=1,item=0"
    return explanations[which], fix


def _users_look_swapped(source: Interactions, target: Interactions) -> bool:
    """Tell whether items look like Amazon's users in both domains."""
    return all(
        np.mean([item.startswith("A") and len(item) > 10 for item in domain.item_ids]) > 0.5
        for domain in (source, target)
    )


def _different_kinds(source: Interactions, target: Interactions) -> Cause | None:
    """User ids of other lengths or letters, as in dumps of different years."""
    ours, theirs = _kind(source.user_ids), _kind(target.user_ids)
    if ours == theirs:
        return None
    return (
        f"the user ids are of different kinds, {ours} in the source "
        f"(as {source.user_ids[0]!r}) and {theirs} in the target (as {target.user_ids[0]!r})",
        "take both dumps from the same place and year: Amazon's user ids of 2014 and 2018 are "
        "not those of 2023",
    )


def _kind(ids: Ids) -> str:
    """Describe most ids of a vocabulary by their letters and their length."""
    sample = ids[:: max(1, len(ids) // SAMPLE_IDS)]
    return Counter(_kind_of_one(identifier) for identifier in sample).most_common(1)[0][0]


def _kind_of_one(identifier: str) -> str:
    if identifier.isdigit():
        return "whole numbers"
    if identifier.isalnum() and identifier.isupper():
        length = "more than 20" if len(identifier) > 20 else "at most 20"
        return f"{length} capitals and digits"
    if identifier.isalnum():
        return "letters and digits"
    return "text"


def _different_times(source: Interactions, target: Interactions) -> Cause | None:
    """Ratings of periods that do not touch."""
    spans = []
    for domain in (source, target):
        known = domain.times[domain.times != 0]
        if not len(known):
            return None
        spans.append((int(known.min()), int(known.max())))
    (source_first, source_last), (target_first, target_last) = spans
    if source_first <= target_last and target_first <= source_last:
        return None
    return (
        f"the source's times are {source_first} to {source_last}, the target's {target_first} to "
        f"{target_last}: dumps of different eras, or one in seconds and one in milliseconds",
        "take both dumps from the same years",
    )

"""The figures of a pair of domains (the paper's Table III and more) and its dataset card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scdr.data.interactions import Interactions
from scdr.data.reading import ReadReport
from scdr.data.scenario import CrossDomain

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True, slots=True)
class DomainStatistics:
    """Figures of one domain.

    Attributes:
        users: number of users with a rating.
        items: number of items with a rating.
        ratings: number of ratings.
        density: ratings / (users * items).
        rating_mean: mean rating.
        rating_min: lowest rating.
        rating_max: highest rating.
        rating_values: number of different ratings.
        user_ratings: ratings of a user at the quantiles ``QUANTILES``.
        item_ratings: ratings of an item at the same quantiles.
        first_time: earliest time in the unit of the file; None where there are no times.
        last_time: latest time.
    """

    users: int
    items: int
    ratings: int
    density: float
    rating_mean: float
    rating_min: float
    rating_max: float
    rating_values: int
    user_ratings: tuple[float, ...]
    item_ratings: tuple[float, ...]
    first_time: int | None
    last_time: int | None


@dataclass(frozen=True, slots=True)
class PairStatistics:
    """Figures of a pair of domains; a row of the paper's Table III.

    Attributes:
        name: of the pair.
        source: figures of the source.
        target: figures of the target.
        overlap_users: users in both.
        ratio: overlap users / users in either domain.
        overlap_source_ratings: source ratings of the overlap users.
        overlap_target_ratings: target ratings of the overlap users.
    """

    name: str
    source: DomainStatistics
    target: DomainStatistics
    overlap_users: int
    ratio: float
    overlap_source_ratings: int
    overlap_target_ratings: int


def statistics(domains: CrossDomain) -> PairStatistics:
    """Compute the figures of a pair of domains.

    Users and items without a rating are not counted.
    """
    source, target = _domain(domains.source), _domain(domains.target)
    overlap = len(domains.overlap)
    return PairStatistics(
        name=domains.name,
        source=source,
        target=target,
        overlap_users=overlap,
        ratio=overlap / max(1, source.users + target.users - overlap),
        overlap_source_ratings=int(np.isin(domains.source.users, domains.overlap[:, 0]).sum()),
        overlap_target_ratings=int(np.isin(domains.target.users, domains.overlap[:, 1]).sum()),
    )


def _domain(interactions: Interactions) -> DomainStatistics:
    per_user = np.bincount(interactions.users)
    per_item = np.bincount(interactions.items)
    per_user, per_item = per_user[per_user > 0], per_item[per_item > 0]
    ratings = interactions.ratings
    times = interactions.times[interactions.times != 0]
    return DomainStatistics(
        users=len(per_user),
        items=len(per_item),
        ratings=len(ratings),
        density=len(ratings) / (len(per_user) * len(per_item)),
        rating_mean=float(ratings.mean(dtype=np.float64)),
        rating_min=float(ratings.min()),
        rating_max=float(ratings.max()),
        rating_values=len(np.unique(ratings)),
        user_ratings=tuple(np.quantile(per_user, QUANTILES).tolist()),
        item_ratings=tuple(np.quantile(per_item, QUANTILES).tolist()),
        first_time=int(times.min()) if len(times) else None,
        last_time=int(times.max()) if len(times) else None,
    )


def dataset_card(domains: CrossDomain, reports: Sequence[ReadReport] = ()) -> str:
    """Describe a pair of domains, and how its files were read, as Markdown.

    Args:
        domains: the pair.
        reports: what the reader found in the source's and the target's file.
    """
    pair = statistics(domains)
    both = (pair.source, pair.target)
    quantiles = ", ".join(f"{quantile:.0%}" for quantile in QUANTILES)
    rows = {
        "users": [f"{domain.users:,}" for domain in both],
        "items": [f"{domain.items:,}" for domain in both],
        "ratings": [f"{domain.ratings:,}" for domain in both],
        "density": [f"{domain.density:.3%}" for domain in both],
        "rating scale": [
            f"{domain.rating_min:g} to {domain.rating_max:g}, {domain.rating_values} values"
            for domain in both
        ],
        "mean rating": [f"{domain.rating_mean:.3f}" for domain in both],
        f"ratings of a user ({quantiles})": [_list(domain.user_ratings) for domain in both],
        f"ratings of an item ({quantiles})": [_list(domain.item_ratings) for domain in both],
        "times": [
            "none" if domain.first_time is None else f"{domain.first_time} to {domain.last_time}"
            for domain in both
        ],
        "ratings of overlap users": [
            f"{pair.overlap_source_ratings:,}",
            f"{pair.overlap_target_ratings:,}",
        ],
    }
    rows |= _reading_rows(reports)
    table = [f"| {title} | {source} | {target} |" for title, (source, target) in rows.items()]
    return "\n".join(
        [
            f"# {pair.name}",
            "",
            f"{pair.overlap_users:,} overlap users, {pair.ratio:.2%} of the users of either "
            "domain.",
            "",
            "| | source | target |",
            "| --- | --- | --- |",
            *table,
            *_malformed(reports),
            "",
        ]
    )


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _reading_rows(reports: Sequence[ReadReport]) -> dict[str, list[str]]:
    if not reports:
        return {}
    return {
        "file": [f"`{report.path}`" for report in reports],
        "format": [report.format for report in reports],
        "rows in the file": [f"{report.rows:,}" for report in reports],
        "malformed rows left out": [f"{report.rejected:,}" for report in reports],
        "duplicates replaced": [f"{report.duplicates:,}" for report in reports],
        "ratings before the core": [f"{report.interactions_before_core:,}" for report in reports],
        "core": [str(report.core) for report in reports],
    }


def _malformed(reports: Sequence[ReadReport]) -> list[str]:
    lines = [
        f"- {report.path}:{line}: {reason}"
        for report in reports
        for line, reason in report.rejected_examples
    ]
    return ["", "Malformed rows:", "", *lines] if lines else []

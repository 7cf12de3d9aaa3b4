"""Whether what the paper says holds here, in sentences made from the measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import polars as pl

from scdr.analysis import RobustError, violations
from scdr.recipes.frames import first_seed, is_relative, over_seeds
from scdr.recipes.landscapes import Shape

OURS, FRAGILE = "SCDR", "PTUPCDR"
FLAT = 0.05
"""Errors of a sweep that lie within this share of their mean count as flat."""
_HOLDS = {True: "holds", False: "does not hold"}


def robustness(found: pl.DataFrame) -> list[str]:
    """Fig. 5: SCDR is most robust, PTUPCDR most fragile."""
    lines = []
    for place, group in _places(found):
        for relative, unit in ((False, ""), (True, " RMS of coordinates")):
            chosen = group.filter(is_relative() == relative)
            top = float(np.max(chosen["level"].to_numpy()))
            last = _means(chosen.filter(pl.col("level") == top), "mae")
            first = _means(chosen.filter(pl.col("level") == 0), "mae")
            if len(last) < 2:
                continue
            rise = {label: last[label] - first[label] for label in last}
            lines.append(
                f"{place}: at eps {top:g}{unit} {_extremes(last, 'MAE')}; "
                f"{_extremes(rise, 'rise')}.{_verdict(last, rise)}"
            )
    return lines


def _verdict(errors: dict[str, float], rise: dict[str, float]) -> str:
    """Both readings of robust: a low error under attack, and a small rise of it."""
    text = ""
    if OURS in errors:
        among = {label: value for label, value in errors.items() if label != "SCDR-B"}
        rises = {label: value for label, value in rise.items() if label != "SCDR-B"}
        text += (
            f" That SCDR is the most robust of the paper's methods {_HOLDS[_least(among, OURS)]} "
            f"by error and {_HOLDS[_least(rises, OURS)]} by rise."
        )
    if FRAGILE in errors:
        text += (
            f" That PTUPCDR is the most fragile {_HOLDS[_most(errors, FRAGILE)]} by error and "
            f"{_HOLDS[_most(rise, FRAGILE)]} by rise."
        )
    return text


def sweep_robustness(found: pl.DataFrame) -> list[str]:
    """Table V, Fig. 8: robust MAE falls as rho and k grow."""
    lines: list[str] = []
    for place, group in _places(found):
        for relative, unit in ((False, ""), (True, " RMS of coordinates")):
            chosen = group.filter(is_relative() == relative, pl.col("rho").is_not_null())
            top = float(np.max(chosen["level"].to_numpy()))
            at = f"at eps {top:g}{unit}"
            lines += _sweep(f"{place}: MAE {at}", chosen.filter(pl.col("level") == top), "mae")
    return lines


def sweep_flatness(found: pl.DataFrame) -> list[str]:
    """Fig. 6: the Lipschitz ratio falls as rho and k grow."""
    lines: list[str] = []
    names = {"own": "at each model's own k and rho", "relative": "at one ball for all"}
    for place, group in _places(found):
        for probe, name in names.items():
            chosen = group.filter(pl.col("probe") == probe, pl.col("rho").is_not_null())
            lines += _sweep(f"{place}: Lipschitz ratio {name}", chosen, "lipschitz_mean")
    return lines


def sweep_performance(found: pl.DataFrame) -> list[str]:
    """Fig. 7: performance is flat in rho and k."""
    lines = []
    for place, group in _places(found.filter(pl.col("rho").is_not_null())):
        for metric in ("mae", "rmse"):
            means = over_seeds(group, ["k", "rho"], metric)["mean"].to_numpy()
            spread = float((means.max() - means.min()) / means.mean())
            lines.append(
                f"{place}: {metric.upper()} over all rho and k from {means.min():.3f} to "
                f"{means.max():.3f}, a spread of {spread:.1%}. That performance is flat "
                f"{_HOLDS[spread <= FLAT]} (within {FLAT:.0%})."
            )
    return lines


def ablation(found: pl.DataFrame) -> list[str]:
    """Table VII: sharpness helps, by more as beta grows."""
    lines = []
    order = ("Task mapping", "SCDR-", "SCDR")
    for pair, group in found.group_by("pair", maintain_order=True):
        leads = []
        for (beta,), some in group.sort("beta").group_by("beta", maintain_order=True):
            means = _means(some, "mae")
            if not set(order) <= set(means):
                continue
            values = [means[label] for label in order]
            falls = all(one > other for one, other in pairwise(values))
            leads.append((values[0] - values[-1]) / values[0])
            listed = ", ".join(f"{label} {means[label]:.3f}" for label in order)
            lines.append(
                f"{pair[0]}, beta {beta:g}: MAE {listed}. That each sharp stage lowers the error "
                f"{_HOLDS[falls]}."
            )
        if len(leads) > 1:
            grows = all(one < other for one, other in pairwise(leads))
            shares = ", ".join(f"{lead:.1%}" for lead in leads)
            lines.append(
                f"{pair[0]}: SCDR is ahead of task mapping by {shares} as beta grows. That the "
                f"lead grows {_HOLDS[grows]}."
            )
    return lines


def landscapes(found: pl.DataFrame) -> list[str]:
    """Fig. 2 and 4: the landscape of SCDR is the flattest."""
    lines = []
    for place, group in _places(first_seed(found)):
        changes = {row["label"]: Shape.of(row).change for row in group.iter_rows(named=True)}
        if len(changes) < 2:
            continue
        text = f"{place}: over the plane {_extremes(changes, 'mean change')}."
        if OURS in changes:
            text += f" That SCDR is the flattest {_HOLDS[_least(changes, OURS)]}."
        lines.append(text)
    return lines


def flatness(found: pl.DataFrame) -> list[str]:
    """Not in the paper in this form: ratios and sharpness of all methods in one relative ball."""
    lines = []
    probed = found.filter(pl.col("probe") == "relative")
    for place, group in _places(probed):
        for column, name in (("lipschitz_mean", "mean ratio"), ("sharpness", "sharpness")):
            means = _means(group, column)
            if len(means) > 1:
                lines.append(f"{place}: {_extremes(means, name)}.")
    return lines


def attacks(found: pl.DataFrame) -> list[str]:
    """How much PGD finds that FGSM does not, at the largest relative eps."""
    lines = []
    chosen = found.filter(is_relative())
    for place, group in _places(chosen.filter(pl.col("level") == pl.col("level").max())):
        under = {
            name: _means(group.filter(pl.col("attack") == name), "mae")
            for name in ("fgsm", "pgd_linf", "transfer")
        }
        more = {name: under["pgd_linf"][name] / under["fgsm"][name] - 1 for name in under["fgsm"]}
        widest = max(more, key=more.__getitem__)
        lines.append(
            f"{place}: PGD raises the MAE by up to {more[widest]:.0%} over FGSM ({widest}); under "
            f"PGD {_extremes(under['pgd_linf'], 'MAE')}."
        )
    return lines


def changed_ratings(found: pl.DataFrame) -> list[str]:
    """What the first and the last changed rating do."""
    lines = []
    for place, group in _places(found):
        top = int(np.max(group["changes"].to_numpy()))
        first = _means(group.filter(pl.col("changes") == 0), "mae")
        last = _means(group.filter(pl.col("changes") == top), "mae")
        rise = {label: last[label] - first[label] for label in last}
        if len(rise) > 1:
            lines.append(
                f"{place}: with {top} changed ratings {_extremes(rise, 'rise')}; "
                f"{_extremes(last, 'MAE')}."
            )
    return lines


def warnings(found: pl.DataFrame) -> list[str]:
    """Where an order that attacks should have is violated, a line for each model and order."""
    if "attack" not in found.columns:
        return []
    lines = []
    keys = ["pair", "beta", "seed", "label", "k", "rho"]
    names = list(RobustError.__dataclass_fields__)
    for key, group in found.group_by([*keys, "scale"], maintain_order=True):
        rows = [RobustError(**row) for row in group.select(names).iter_rows(named=True)]
        unit = "" if key[-1] == 1.0 else " (RMS of coordinates)"
        place = f"{key[0]}, beta {key[1]:g}, seed {key[2]}, {key[3]}"
        if key[5]:
            place += f" (k = {key[4]}, rho = {key[5]:g})"
        lines += [f"{place}{unit}: {line}" for line in violations(rows)]
    return lines


def _sweep(what: str, found: pl.DataFrame, value: str) -> Iterator[str]:
    means = over_seeds(found, ["k", "rho"], value)
    cells = {(k, rho): mean for k, rho, mean in means.select("k", "rho", "mean").iter_rows()}
    steps, radii = sorted({k for k, _ in cells}), sorted({rho for _, rho in cells})
    if len(cells) < 2 or len(cells) < len(steps) * len(radii):
        return
    parts = []
    if len(steps) > 1:
        for rho in radii:
            values = [cells[k, rho] for k in steps]
            parts.append(f"as k grows at rho = {rho:g} {_course(values)}")
    if len(radii) > 1:
        k = steps[-1]
        parts.append(f"as rho grows at k = {k} {_course([cells[k, rho] for rho in radii])}")
    yield f"{what} {'; '.join(parts)}."


def _course(values: list[float]) -> str:
    falls = all(one >= other for one, other in pairwise(values))
    rises = all(one <= other for one, other in pairwise(values))
    change = values[-1] / values[0] - 1
    if abs(change) < 0.01 and max(values) / min(values) < 1.01:
        return f"stays within 1 % ({values[0]:.3f} to {values[-1]:.3f})"
    verb = "falls" if falls else "rises" if rises else "goes up and down"
    return f"it {verb} ({values[0]:.3f} to {values[-1]:.3f}, {change:+.0%})"


def _places(found: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    for (pair, beta), group in found.group_by("pair", "beta", maintain_order=True):
        yield f"{pair}, beta {beta:g}", group


def _means(found: pl.DataFrame, value: str) -> dict[str, float]:
    """The mean over seeds of each label, without those that have none."""
    means = over_seeds(found, ["label"], value).drop_nulls("mean")
    return {
        label: mean
        for label, mean in means.select("label", "mean").iter_rows()
        if np.isfinite(mean)
    }


def _extremes(values: dict[str, float], name: str) -> str:
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    return (
        f"{low} has the lowest {name} ({values[low]:.3f}) and {high} the highest "
        f"({values[high]:.3f})"
    )


def _least(values: dict[str, float], label: str) -> bool:
    return values[label] == min(values.values())


def _most(values: dict[str, float], label: str) -> bool:
    return values[label] == max(values.values())


Claim = Callable[[pl.DataFrame], list[str]]

"""Robust error: the error on test ratings while user vectors are under attack (Table V, Fig. 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from scdr.analysis.attacks import Norm, fgsm, nes, pgd, random_search, transfer
from scdr.analysis.rating_errors import RatingErrors, first_rows, layers_of
from scdr.ops.threads import one_thread

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The eps of Table V."""

WHITE_BOX = ("fgsm", "pgd_linf", "pgd_l2")
BLACK_BOX = ("transfer", "random_search", "nes")


@dataclass(frozen=True, slots=True)
class RobustError:
    """The error of one method under one attack.

    Attributes:
        attack: one of `WHITE_BOX` or `BLACK_BOX`.
        queries: predictions that the attack may ask for each rating; None where it asks for none.
        level: eps in units of `scale`.
        scale: 1 for an absolute eps, or the RMS of the coordinates of the user vectors.
        mae: mean absolute error over test ratings.
        rmse: root of their mean squared error.
    """

    attack: str
    queries: int | None
    level: float
    scale: float
    mae: float
    rmse: float

    @property
    def eps(self) -> float:
        """The most that a coordinate moves, in the units of the user vectors.

        `pgd_l2` has the smallest l2 ball that holds this cube, of radius `eps sqrt(d_source)`.
        """
        return self.level * self.scale


def robustness(
    errors: RatingErrors,
    *,
    levels: Sequence[float] = LEVELS,
    relative: bool = False,
    surrogate: RatingErrors | None = None,
    queries: Sequence[int] = (25, 100),
    steps: int = 10,
    starts: int = 3,
    seed: int = 0,
) -> list[RobustError]:
    """The error of one method under every attack.

    FGSM is as published, one step. PGD is given what FGSM and itself at smaller eps found, as its
    balls hold theirs: so by construction it is never the weaker of the two, and its error never
    falls as eps grows. Nothing else is made so; `violations` says where an order does not hold.

    Args:
        errors: of the attacked method.
        levels: eps, growing.
        relative: eps in units of the RMS of the coordinates of the user vectors, which a model
            cannot escape by scaling its vectors up.
        surrogate: of another model at the same ratings (`surrogate_errors`), for `transfer`; None
            leaves this attack out.
        queries: budgets of the attacks that only see predictions.
        steps: of PGD, in each direction.
        starts: starting points of PGD.
        seed: of all that is random.

    Raises:
        ValueError: levels or queries that do not grow or are out of range, or a surrogate of other
            ratings.
    """
    if list(levels) != sorted(set(levels)):
        raise ValueError(f"levels is {list(levels)}; it must grow from entry to entry")
    if surrogate is not None and not torch.equal(surrogate.vectors, errors.vectors):
        raise ValueError("surrogate is at other vectors than errors; see surrogate_errors")
    scale = errors.coordinate_rms() if relative else 1.0
    width = errors.vectors.shape[1]
    balls: tuple[tuple[Norm, float], ...] = (("linf", 1.0), ("l2", math.sqrt(width)))
    found: list[RobustError] = []

    def note(attack: str, level: float, delta: Tensor, budget: int | None = None) -> None:
        mae, rmse = mean_errors(errors.at(errors.vectors + delta))
        found.append(RobustError(attack, budget, level, scale, mae, rmse))

    before: dict[Norm, Tensor] = {}
    for level in levels:
        eps = level * scale
        one_step = fgsm(errors, eps)
        note("fgsm", level, one_step)
        for norm, radius in balls:
            start = _worse(errors, one_step, before.get(norm, one_step))
            before[norm] = pgd(
                errors,
                radius * eps,
                norm=norm,
                steps=steps,
                starts=starts,
                seed=seed,
                start=start,
            )
            note(f"pgd_{norm}", level, before[norm])
        if surrogate is not None:
            note("transfer", level, transfer(surrogate, eps, steps=steps, starts=starts, seed=seed))
        for attack in (random_search, nes):
            deltas = attack(errors, eps, queries=queries, seed=seed)
            for budget, delta in zip(queries, deltas, strict=True):
                note(attack.__name__, level, delta, budget)
    return found


@one_thread()
@torch.no_grad()
def surrogate_errors(surrogate: RatingErrors, attacked: RatingErrors) -> RatingErrors:
    """A separately trained model as a function of the attacked model's user vectors.

    Two trainings have different coordinates, so a perturbation of one model's vectors says nothing
    about the other's. The attacker is granted the vectors of these users in both and fits the
    affine map from the attacked model's to the surrogate's by least squares; for two models over
    the same source vectors it is the identity.

    Args:
        surrogate: errors of the attacker's own model.
        attacked: errors of the attacked model at the same ratings.

    Raises:
        ValueError: the two are of other ratings.
    """
    if not torch.equal(surrogate.users, attacked.users):
        raise ValueError("surrogate has other ratings than attacked")
    rows = first_rows(attacked.users)
    theirs, own = (errors.vectors[rows].double().cpu() for errors in (attacked, surrogate))
    with_one = torch.cat([theirs, theirs.new_ones(len(theirs), 1)], dim=1)
    solution = torch.linalg.lstsq(with_one, own, driver="gelsd").solution  # [d_attacked + 1, d]
    affine = nn.Linear(theirs.shape[1], own.shape[1]).to(attacked.vectors)
    affine.weight.copy_(solution[:-1].T)
    affine.bias.copy_(solution[-1])
    affine.requires_grad_(False)
    mapping = nn.Sequential(affine, *layers_of(surrogate.mapping))
    return replace(surrogate, vectors=attacked.vectors, mapping=mapping)


def mean_errors(errors: Tensor) -> tuple[float, float]:
    """MAE and RMSE of signed errors `[n]`, summed in float64."""
    exact = errors.double()
    return float(exact.abs().mean()), float(exact.square().mean().sqrt())


def violations(found: Sequence[RobustError]) -> list[str]:
    """Where an order that attacks should have does not hold, a line each; none is good.

    At each level a white-box attack should be at least as strong as a black-box one, and PGD as
    FGSM; and no attack's error should fall as eps grows. Up to a millionth, for rounding.

    Args:
        found: of one method, at one scale.
    """
    mae = {(row.attack, row.queries, row.level): row.mae for row in found}
    kinds = list(dict.fromkeys((row.attack, row.queries) for row in found))
    levels = sorted({row.level for row in found})

    def title(kind: tuple[str, int | None]) -> str:
        return kind[0] if kind[1] is None else f"{kind[0]} with {kind[1]} queries"

    def below(one: float, other: float) -> bool:
        return one < other * (1 - 1e-6)

    lines = []
    for level in levels:
        for strong in kinds:
            for weak in kinds:
                ordered = strong[0] in WHITE_BOX and weak[0] in BLACK_BOX
                ordered |= strong[0].startswith("pgd") and weak[0] == "fgsm"
                if ordered and below(mae[(*strong, level)], mae[(*weak, level)]):
                    lines.append(
                        f"at eps {level:g} {title(strong)} (MAE {mae[(*strong, level)]:.4f}) is "
                        f"weaker than {title(weak)} ({mae[(*weak, level)]:.4f})"
                    )
    for kind in kinds:
        for smaller, larger in pairwise(levels):
            if below(mae[(*kind, larger)], mae[(*kind, smaller)]):
                lines.append(
                    f"{title(kind)}: MAE falls from {mae[(*kind, smaller)]:.4f} at eps "
                    f"{smaller:g} to {mae[(*kind, larger)]:.4f} at {larger:g}"
                )
    return lines


def _worse(errors: RatingErrors, one: Tensor, other: Tensor) -> Tensor:
    at_one, at_other = (errors.at(errors.vectors + delta).abs() for delta in (one, other))
    return torch.where((at_one > at_other)[:, None], one, other)

"""The recipes: which models each needs, what it measures on them, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from scdr.experiments.config import ABLATION
from scdr.experiments.table import Table
from scdr.methods import METHODS
from scdr.recipes import claims, frames, landscapes, lines

ALL = "all"
SWEPT = "scdr"
"""The method that is swept over rho and k."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One figure or table of the analysis.

    Attributes:
        title: what it shows.
        paper: where the paper has it; empty where it has not.
        kind: of measurement, by its name in `scdr.recipes.measure`.
        methods: trained for it; all mapping-based ones where empty.
        swept: whether `SWEPT` is trained at each rho and k of the sweep instead.
        betas: of the paper.
        about: how to read it.
        tables: CSV frames by file name, from the measurements.
        shown: tables of the report.
        draw: the picture.
        claim: whether what the paper says holds here, in sentences.
    """

    title: str
    kind: str
    about: str
    tables: Callable[[pl.DataFrame], dict[str, pl.DataFrame]]
    shown: Callable[[pl.DataFrame], list[Table]]
    draw: Callable[[pl.DataFrame], Figure]
    claim: Callable[[pl.DataFrame], list[str]]
    paper: str = ""
    methods: tuple[str, ...] = ()
    swept: bool = False
    betas: tuple[float, ...] = (0.8,)

    def method_names(self) -> tuple[str, ...]:
        """The methods to train."""
        if self.swept:
            return (SWEPT,)
        return self.methods or tuple(name for name in METHODS if METHODS[name].mapping_based)


_SWEEP = (
    "SCDR trained at each rho and k of the mapping stage (Eq. 9, 12); pretraining is the same for "
    "all of them. "
)
_FGSM = (
    "Mean absolute error (MAE) on test ratings while each user vector is moved by eps along the "
    "sign of the gradient (Eq. 19). "
)

RECIPES: Mapping[str, Recipe] = {
    "table5": Recipe(
        title="Robust error of SCDR by rho and k",
        paper="Table V",
        kind="fgsm",
        swept=True,
        about=_FGSM + _SWEEP,
        tables=frames.fgsm_tables("table5"),
        shown=frames.fgsm_shown("Table V. Robust MAE of SCDR under FGSM"),
        draw=lines.draw_sweep_error,
        claim=claims.sweep_robustness,
    ),
    "table7": Recipe(
        title="Ablation",
        paper="Table VII",
        kind="performance",
        methods=ABLATION,
        betas=(0.2, 0.5, 0.8),
        about="Errors on test ratings without sharpness (task mapping), with a sharp mapping "
        "(SCDR-), and with sharp pretraining too (SCDR). ",
        tables=frames.performance_tables("table7"),
        shown=frames.performance_shown("Table VII. Ablation"),
        draw=lines.draw_ablation,
        claim=claims.ablation,
    ),
    "fig2": Recipe(
        title="Loss surfaces of EMCDR and SCDR",
        paper="Fig. 2",
        kind="landscape",
        methods=("emcdr", "scdr"),
        about="MAE on test ratings over a plane of source user vectors (Algorithm 2): two random "
        "directions, the same for all methods, in units of each user vector's length. ",
        tables=frames.landscape_tables("fig2"),
        shown=frames.landscape_shown,
        draw=landscapes.draw_surfaces,
        claim=claims.landscapes,
    ),
    "fig4": Recipe(
        title="Loss landscapes",
        paper="Fig. 4",
        kind="landscape",
        methods=("emcdr", "ptupcdr", "tmcdr", "scdr"),
        about="The same as contours on one colour scale: the denser the lines, the sharper the "
        "landscape. ",
        tables=frames.landscape_tables("fig4"),
        shown=frames.landscape_shown,
        draw=landscapes.draw_contours,
        claim=claims.landscapes,
    ),
    "fig5": Recipe(
        title="Robust error of all methods",
        paper="Fig. 5",
        kind="fgsm",
        about=_FGSM + "On the left eps is in the units of the user vectors, as in the paper; on "
        "the right in units of the RMS of their coordinates, which a method cannot escape by "
        "scaling its vectors up. PTUPCDR is attacked through the vector alone, as in the paper: "
        "its bridges, which depend on a user's history, stay as they are. ",
        tables=frames.fgsm_tables("fig5"),
        shown=frames.fgsm_shown("Robust MAE under FGSM"),
        draw=lines.draw_fgsm,
        claim=claims.robustness,
    ),
    "fig6": Recipe(
        title="Lipschitz ratio of SCDR by rho and k",
        paper="Fig. 6",
        kind="flatness",
        swept=True,
        about=_SWEEP + "On the left the ratio (Eq. 22) at the perturbation that each model was "
        "trained against; on the right, for all models alike, at the largest k and a ball of "
        f"{frames.RELATIVE:g} RMS lengths of a user vector. The left one mixes what training did "
        "with where it is measured: through a saturating tanh a longer perturbation has a lower "
        "ratio on the same model. ",
        tables=frames.own_flatness_tables,
        shown=frames.flatness_shown("Flatness of SCDR"),
        draw=lines.draw_sweep_flatness,
        claim=claims.sweep_flatness,
    ),
    "fig7": Recipe(
        title="Error of SCDR by rho and k",
        paper="Fig. 7",
        kind="performance",
        swept=True,
        about=_SWEEP + "No attack. ",
        tables=frames.performance_tables("fig7"),
        shown=frames.performance_shown("Error of SCDR by rho and k"),
        draw=lines.draw_sweep_performance,
        claim=claims.sweep_performance,
    ),
    "fig8": Recipe(
        title="Robust error of SCDR by eps, for each rho and k",
        paper="Fig. 8",
        kind="fgsm",
        swept=True,
        about=_FGSM + _SWEEP,
        tables=frames.fgsm_tables("fig8"),
        shown=lambda found: [],
        draw=lines.draw_sweep_fgsm,
        claim=claims.sweep_robustness,
    ),
    "attacks": Recipe(
        title="Stronger attacks, and attacks that do not know the weights",
        kind="attacks",
        about="MAE on test ratings under one step of FGSM, PGD in a cube and in an l2 ball (white "
        "box), perturbations made on a task mapping that was trained apart (transfer), random "
        "search and NES with 25 and 100 queries a rating (black box). eps is in RMS of the "
        "coordinates of the user vectors. ",
        tables=frames.attack_tables,
        shown=frames.attacks_shown,
        draw=lines.draw_attacks,
        claim=claims.attacks,
    ),
    "flatness": Recipe(
        title="Flatness of all methods",
        kind="flatness",
        about="Lipschitz ratio of the mapping (Eq. 22), its mean over users, its maximum and the "
        "spectral bound that no ratio exceeds; and sharpness, by how much the mean squared error "
        "rises at worst in the ball (Eq. 4). The ball is "
        f"{frames.RELATIVE:g} RMS lengths of a method's user vectors. ",
        tables=frames.flatness_tables,
        shown=frames.flatness_shown("Flatness"),
        draw=lines.draw_flatness,
        claim=claims.flatness,
    ),
    "ratings": Recipe(
        title="An attacker who changes source ratings",
        kind="changed_ratings",
        about="MAE on test ratings where up to m source ratings of each user are changed to the "
        "lowest or highest of the scale, and the user is folded in again by ridge regression. At "
        "m = 0 the user is folded in from the true ratings. SCDR-B has a factor model of its own "
        "and does not take part. ",
        tables=frames.changed_rating_tables,
        shown=frames.changed_ratings_shown,
        draw=lines.draw_changed_ratings,
        claim=claims.changed_ratings,
    ),
}
"""By name, in the order of a report."""

OF_RUNS = ("fig5", "attacks", "flatness", "ratings", "fig4", "fig2")
"""What is made of run folders unless the user says otherwise."""

"""The sections of recipes: their files, and what the report shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
import polars as pl

from scdr.recipes import claims
from scdr.recipes.catalogue import RECIPES, Recipe
from scdr.recipes.landscapes import surfaces
from scdr.recipes.measure import Task
from scdr.recipes.study import Measurements, collect, place_of
from scdr.recipes.style import CONFIDENCE, to_png, to_svg
from scdr.report.page import Picture, Section
from scdr.whole_file import write_whole


def write_recipe(
    name: str, tasks: Sequence[Task], store: Measurements, folder: Path, *, rotatable: bool
) -> Section | None:
    """Write a recipe's figures and tables, and make its section of the report.

    Args:
        name: of the recipe.
        tasks: its models.
        store: where their measurements are.
        folder: of the report; `figures` and `tables` are in it.
        rotatable: whether the section has the landscapes to rotate.

    Returns:
        None where the measurement applies to none of the models.

    Raises:
        InputError: a file can't be written.
    """
    recipe = RECIPES[name]
    found = collect(tasks, store, recipe.kind)
    if found.is_empty():
        return None
    for table, frame in recipe.tables(found).items():
        write_whole(folder / "tables" / f"{table}.csv", frame.write_csv().encode())
    picture = recipe.draw(found)
    svg = to_svg(picture)
    write_whole(folder / "figures" / f"{name}.svg", svg)
    write_whole(folder / "figures" / f"{name}.png", to_png(picture))
    return Section(
        name=name,
        title=f"{recipe.paper}: {recipe.title}" if recipe.paper else recipe.title,
        about=recipe.about + _band(recipe, found),
        findings=tuple(recipe.claim(found)),
        warnings=tuple(claims.warnings(found)),
        picture=Picture(svg, "svg+xml", recipe.title),
        tables=tuple(recipe.shown(found)),
        surfaces=tuple(surfaces(found)) if rotatable and recipe.kind == "landscape" else (),
    )


def _band(recipe: Recipe, found: pl.DataFrame) -> str:
    """What the figure's bands are."""
    if recipe.kind == "landscape":
        return "The lowest seed is shown."
    seeds = found["seed"].n_unique()
    if seeds == 1:
        return "One seed."
    if recipe.kind == "flatness" and not recipe.swept:
        return (
            f"Dots are means over {seeds} seeds, bars their {CONFIDENCE:.0%} confidence intervals "
            "(Student's t)."
        )
    return (
        f"Lines are means over {seeds} seeds. Bands are {CONFIDENCE:.0%} confidence intervals over "
        "seeds (Student's t) without what moves all lines of a panel together, as an easier split "
        "does (Cousineau and Morey): they say whether lines differ. The tables have the whole "
        "deviation over seeds."
    )


def hyperparameter_section(tasks: Sequence[Task], store: Measurements) -> Section:
    """The hyper-parameters of all models, each set once."""
    texts: dict[str, str] = {}
    for task in tasks:
        hyper = orjson.dumps(store.find(task).hyper, option=orjson.OPT_INDENT_2).decode()
        subject = task.subject
        place = place_of(subject).split(", ")[-1]
        texts.setdefault(f"{place.strip()}, preset {subject.preset}", hyper)
    return Section(name="hyperparameters", title="Hyper-parameters", preformatted=texts)

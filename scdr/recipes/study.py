"""From recipes and models to measurements: what is missing is measured, the rest is on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from scdr.checksum import UNSEALED, seal, why_damaged
from scdr.errors import InputError
from scdr.experiments.schedule import in_processes
from scdr.fingerprint import code_digest, digest
from scdr.progress import Progress
from scdr.recipes.measure import Outcome, Task, measure
from scdr.recipes.models import Subject
from scdr.whole_file import write_whole

CODE = ("analysis", "data", "methods", "models", "ops", "prediction.py", "recipes/measure.py")
"""What a measurement is computed by."""
SUBJECT = {
    "pair": pl.String,
    "beta": pl.Float64,
    "seed": pl.Int64,
    "preset": pl.String,
    "method": pl.String,
    "label": pl.String,
    "k": pl.Int64,
    "rho": pl.Float64,
}
"""What a row of measurements is of."""


class Measurements:
    """Measurements in a folder, a file for each model, so that a second call finds them."""

    def __init__(self, folder: Path) -> None:
        """Use a folder that exists."""
        self.folder = folder

    def find(self, task: Task) -> Outcome:
        """What is known of a model; nothing where there is no file or it is damaged."""
        try:
            data = self._path(task).read_bytes()
            if why_damaged(data):
                return Outcome()
            kept = orjson.loads(data)
            return Outcome(rows=kept["rows"], hyper=kept["hyper"])
        except (OSError, ValueError, KeyError, TypeError):
            return Outcome()

    def keep(self, task: Task, outcome: Outcome) -> None:
        """Add to what is known of a model.

        Raises:
            InputError: it can't be written.
        """
        rows = self.find(task).rows | outcome.rows
        kept = {"checksum": UNSEALED, "rows": rows, "hyper": outcome.hyper}
        data = bytearray(orjson.dumps(kept))
        seal(data)
        write_whole(self._path(task), data)

    def _path(self, task: Task) -> Path:
        of = task.subject.digest, dataclasses.asdict(task.options), code_digest(*CODE)
        return self.folder / f"{digest(*of)}.json"


def run_missing(
    tasks: Sequence[Task], store: Measurements, *, jobs: int, progress: Progress
) -> dict[str, str]:
    """Measure what the store does not hold.

    Returns:
        Why models failed, by the place of each.

    Raises:
        InputError: a result can't be written.
    """
    missing = []
    for task in tasks:
        known = store.find(task).rows
        if kinds := tuple(kind for kind in task.kinds if kind not in known):
            missing.append(dataclasses.replace(task, kinds=kinds))
    failures: dict[str, str] = {}
    if not missing:
        return failures
    notes: set[str] = set()
    finished = in_processes(measure, missing, jobs=min(jobs, len(missing)), died=_died)
    with progress.runs(len(tasks), len(tasks) - len(missing)) as advance, closing(finished):
        for task, outcome in finished:
            if outcome.error is None:
                store.keep(task, outcome)
            else:
                failures[place_of(task.subject)] = outcome.error
            advance(outcome.error is not None)
            notes.update(outcome.notes)
    for note in sorted(notes):
        progress.note(note)
    if len(failures) == len(tasks):
        place, error = next(iter(failures.items()))
        raise InputError(f"no model could be analysed; the first, {place}: {error}")
    return failures


def _died(task: Task) -> Outcome:
    return Outcome(error="its process ended without a result, as for lack of memory")


def place_of(subject: Subject) -> str:
    """A model in words."""
    place = f"{subject.pair}, beta {subject.beta:g}, seed {subject.seed}, {subject.label}"
    return place if subject.rho is None else f"{place} (k = {subject.k}, rho = {subject.rho:g})"


def collect(tasks: Iterable[Task], store: Measurements, kind: str) -> pl.DataFrame:
    """All rows of one kind of measurement, columns `SUBJECT` first; models that lack it are not."""
    rows: list[dict[str, Any]] = []
    for task in tasks:
        found = store.find(task).rows.get(kind, [])
        rows += [{name: getattr(task.subject, name) for name in SUBJECT} | row for row in found]
    if not rows:
        return pl.DataFrame(schema=SUBJECT)
    return pl.DataFrame(rows, schema_overrides=SUBJECT, infer_schema_length=None)

"""A comparison from its configuration to its results: plan, run what is missing, collect."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from scdr.data import PairStatistics, dataset_card, statistics
from scdr.device import available_threads, resolve_device
from scdr.errors import InputError
from scdr.experiments.cache import default_folder
from scdr.experiments.config import (
    CompareConfig,
    PairConfig,
    backbones_of,
    hyper_of,
    method_names,
)
from scdr.experiments.schedule import in_processes
from scdr.experiments.store import ResultStore
from scdr.experiments.tuning import import_optuna
from scdr.experiments.work import Result, Work, execute, method_of
from scdr.fingerprint import code_digest, digest, domains_digest, method_digest
from scdr.loading import load
from scdr.methods import CONTROLS, METHODS
from scdr.progress import Progress

GB = 10**9
CODE = (
    "data",
    "evaluation",
    "experiments/tuning.py",
    "experiments/work.py",
    "methods",
    "models",
    "ops",
    "prediction.py",
)
"""What a result is computed by."""

RUN_KEYS = {
    "pair": pl.String,
    "beta": pl.Float64,
    "seed": pl.Int64,
    "preset": pl.String,
    "method": pl.String,
    "backbone": pl.String,
}
KEYS = RUN_KEYS | {"optimise": pl.String}
"""A run, and the point of its distribution that is predicted; null where it has none to choose."""
RESULT_COLUMNS = {
    **KEYS,
    **dict.fromkeys(("mae", "rmse", "user_mae", "user_rmse"), pl.Float64),
    **dict.fromkeys(("mae_low", "mae_high", "rmse_low", "rmse_high"), pl.Float64),
    **dict.fromkeys(("n_test", "n_test_users", "n_test_unseen_item"), pl.Int64),
    **dict.fromkeys(("n_train_users", "n_validation_users"), pl.Int64),
    "error": pl.String,
    "config_hash": pl.String,
    "seconds": pl.Float64,
}
"""Columns of results.csv; the metrics of a run that failed are empty."""
USER_COLUMNS = {**KEYS, "user": pl.String, "n_ratings": pl.Int64} | dict.fromkeys(
    ("mae", "rmse"), pl.Float64
)
"""Columns of user_errors.parquet."""


@dataclass(frozen=True)
class Pair:
    """A pair of domains as it was found.

    Attributes:
        config: where the data come from.
        statistics: its row of Table III.
        card: its dataset card, Markdown.
        data: digest of the data.
    """

    config: PairConfig
    statistics: PairStatistics
    card: str
    data: str


def read_pairs(config: CompareConfig, progress: Progress) -> list[Pair]:
    """Read every pair once, so that bad input ends a comparison before it starts.

    Raises:
        InputError: a file can't be used, or a pair has no overlap users.
    """
    pairs = []
    for pair in config.pairs:
        try:
            loaded = load(pair, progress, core=config.core, strict=config.strict)
        except InputError as error:
            where = f"pair {pair.name}" + (f", {error.where}" if error.where else "")
            raise InputError(error.what, where=where, fix=error.fix) from error
        domains = dataclasses.replace(loaded.domains, name=pair.name)
        pairs.append(
            Pair(
                config=pair,
                statistics=statistics(domains),
                card=dataset_card(domains, loaded.reports),
                data=domains_digest(domains),
            )
        )
    return pairs


def plan(config: CompareConfig, pairs: Sequence[Pair]) -> list[Work]:
    """All runs, in the order of the tables.

    Raises:
        ScdrError: the device can't be used, a hyper-parameter is wrong, or Optuna is missing.
    """
    if config.tune:
        import_optuna()
    jobs = config.jobs or available_threads()
    shared: dict[str, Any] = {
        "validation_fraction": config.validation_fraction,
        "clip": config.clip,
        "device": resolve_device(config.device).type,
    }
    without_effect: dict[str, Any] = {
        "preset": config.preset,
        "core": config.core,  # the digest of the data knows it, and `strict`
        "strict": config.strict,
        "threads": max(1, available_threads() // jobs),
        "cache": Path(config.cache) if config.cache else default_folder(),
        "cache_limit": int(config.cache_gb * GB),
    }
    code = code_digest(*CODE)
    methods = [
        (
            name,
            backbone,
            hyper_of(config, name, backbone),
            method_digest(CONTROLS.get(name) or METHODS[name]),
            0 if name in CONTROLS else config.tune,
        )
        for name in method_names(config)
        for backbone in backbones_of(config, name)
    ]
    return [
        Work(
            pair=pair.config,
            data=pair.data,
            beta=beta,
            seed=seed,
            method=name,
            backbone=backbone,
            hyper=hyper,
            trials=trials,
            config_hash=digest(
                pair.data, beta, seed, name, dataclasses.asdict(hyper), trials, shared, code, source
            ),
            **shared,
            **without_effect,
        )
        for pair in pairs
        for beta in config.betas
        for seed in config.seeds
        for name, backbone, hyper, source, trials in methods
    ]


def missing_runs(works: Sequence[Work], store: ResultStore) -> list[Work]:
    """Runs without a result, and those that may succeed where they failed before."""
    return [w for w in works if (result := store.find(w)) is None or not result.final]


def run_missing(
    works: Sequence[Work], store: ResultStore, *, jobs: int, progress: Progress
) -> None:
    """Run and store what the store does not hold.

    Raises:
        InputError: a result can't be written.
    """
    missing = missing_runs(works, store)
    for path, why in store.damaged.items():
        progress.note(f"damaged result {path} ({why}): left out and run again")
    if not missing:
        return
    notes: set[str] = set()
    jobs = min(jobs, len(missing))
    finished = in_processes(execute, in_order_of_work(missing), jobs=jobs, died=_died)
    done = len(works) - len(missing)
    with progress.runs(len(works), done) as advance, closing(finished):
        for work, result in finished:
            store.keep(work, result)
            advance(result.error is not None)
            for note in (*result.notes, *_failure(work, result)):
                if note not in notes:
                    progress.note(note)
                    notes.add(note)


def in_order_of_work(works: Sequence[Work]) -> list[Work]:
    """Pair by pair and method by method, so that runs at once rarely need the same factors."""
    pairs = list(dict.fromkeys(work.pair.name for work in works))
    methods = list(dict.fromkeys(work.method for work in works))
    return sorted(works, key=lambda work: (pairs.index(work.pair.name), methods.index(work.method)))


def _died(work: Work) -> Result:
    return Result(error="its process ended without a result, as for lack of memory", final=False)


def _failure(work: Work, result: Result) -> Iterator[str]:
    if result.error:
        yield f"failed: {work.place}: {result.error}"


def collect(works: Sequence[Work], store: ResultStore) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Results and users' errors of all runs, in the order of the plan.

    Returns:
        Columns `RESULT_COLUMNS`, a row for each run and point that its method can predict; and
        columns `USER_COLUMNS`, a row for each of these and test user.
    """
    rows, errors = [], []
    for work in works:
        result = store.find(work)
        if result is None:
            continue
        key = _key(work)
        of_run = {
            "error": result.error,
            "config_hash": work.config_hash,
            "seconds": result.seconds,
        }
        failed = [{"optimise": point} for point in method_of(work).points]
        rows += [key | point | of_run for point in result.metrics or failed]
        if result.users is not None:
            constants = [
                pl.lit(key[name], dtype=dtype).alias(name) for name, dtype in RUN_KEYS.items()
            ]
            errors.append(result.users.select(*constants, *result.users.columns))
    no_errors = pl.DataFrame(schema=USER_COLUMNS)
    return pl.DataFrame(rows, schema=RESULT_COLUMNS), pl.concat([no_errors, *errors])


def runs_of(results: pl.DataFrame) -> pl.DataFrame:
    """One row for each run, of results that have one for each of its points."""
    return results.unique(list(RUN_KEYS), keep="first", maintain_order=True)


def tuning_report(works: Sequence[Work], store: ResultStore) -> list[dict[str, Any]]:
    """The searches over hyper-parameters: for each run the best values and all trials."""
    report = []
    for work in works:
        result = store.find(work)
        if result and result.tuned:
            report.append(_key(work) | dataclasses.asdict(result.tuned))
    return report


def _key(work: Work) -> dict[str, Any]:
    return {
        "pair": work.pair.name,
        "beta": work.beta,
        "seed": work.seed,
        "preset": work.preset,
        "method": work.method,
        "backbone": work.backbone,
    }

"""One run of a comparison: fit one method on one split and judge it on the test users."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from scdr.data import ColdStartSplit, CrossDomain, Interactions, cold_start_split
from scdr.errors import InputError, ScdrError
from scdr.evaluation import user_errors
from scdr.experiments.cache import FactorCache
from scdr.experiments.config import PairConfig
from scdr.experiments.tuning import Tuned, tune
from scdr.fingerprint import domains_digest
from scdr.loading import load
from scdr.methods import CONTROLS, METHODS, FactorPredictor, FitContext, Method
from scdr.methods.base import PretrainedFactors
from scdr.models import Backbone
from scdr.models.rating_distribution import Optimise
from scdr.prediction import metrics_of, predict_test
from scdr.progress import Progress


def arm(method: str, backbone: str | None) -> str:
    """A method, and its backbone where that is not matrix factorisation."""
    return method if backbone in (None, "mf") else f"{method}, {backbone}"


def place(pair: str, beta: float, seed: int, method: str, backbone: str | None) -> str:
    """A run in words."""
    return f"{pair}, beta {beta}, seed {seed}, {arm(method, backbone)}"


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that a run depends on, and where it happens; travels between processes.

    Attributes:
        pair: where the data come from.
        data: digest of the data that were found there.
        beta: share of the overlap users that are test users.
        seed: of the split and of everything random in the method.
        preset: name of the preset, for the report.
        method: name of the method or control.
        backbone: what its factors come from; None where it has none to choose.
        hyper: its hyper-parameters.
        trials: of a search over hyper-parameters; 0 for none.
        core: of the files, as in `load`.
        strict: as in `load`.
        validation_fraction: of the split.
        clip: whether predictions are clipped.
        config_hash: digest of the data, of all else that the result depends on, and of the code.
        device: where to train.
        threads: to use.
        cache: folder of pretrained factors.
        cache_limit: bytes that they may take.
    """

    pair: PairConfig
    data: str
    beta: float
    seed: int
    preset: str
    method: str
    backbone: Backbone | None
    hyper: Any
    trials: int
    core: int
    strict: bool
    validation_fraction: float
    clip: bool
    config_hash: str
    device: str
    threads: int
    cache: Path
    cache_limit: int

    @property
    def arm(self) -> str:
        """The method, and its backbone where that is not matrix factorisation."""
        return arm(self.method, self.backbone)

    @property
    def place(self) -> str:
        """The run in words."""
        return place(self.pair.name, self.beta, self.seed, self.method, self.backbone)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run leaves.

    Attributes:
        metrics: columns of results.csv, for each point that the method can predict; none where the
            run failed.
        users: errors of each test user: `optimise`, `user`, `n_ratings`, `mae`, `rmse`; None where
            it failed.
        seconds: of fitting and predicting; what was shared counts where it was trained.
        error: why it failed, in one line; None where it did not.
        final: whether it would fail again just so, which divergence would and lack of memory not.
        trace: of an error that is not the user's.
        tuned: the search over hyper-parameters; None where there was none.
        notes: what the user should know.
    """

    metrics: list[dict[str, Any]] = field(default_factory=list)
    users: pl.DataFrame | None = None
    seconds: float = 0.0
    error: str | None = None
    final: bool = True
    trace: str | None = None
    tuned: Tuned | None = None
    notes: tuple[str, ...] = ()


def execute(work: Work) -> Result:
    """Fit, predict and judge; an error is a result as well."""
    started = time.perf_counter()
    cache = FactorCache(work.cache, limit=work.cache_limit)
    torch.set_num_threads(work.threads)
    try:
        result = run(work, read_domains(work), cache, Progress)
    except ScdrError as error:
        result = Result(error=str(error), final=not isinstance(error, InputError))
    except Exception as error:
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        result = Result(error=line, final=False, trace=traceback.format_exc())
    seconds = result.seconds or time.perf_counter() - started
    return dataclasses.replace(result, seconds=round(seconds, 3), notes=tuple(cache.notes))


def read_domains(work: Work) -> CrossDomain:
    """The pair's domains; the last one is kept, since runs come pair by pair.

    Raises:
        InputError: the data are not those that were planned with.
    """
    return _domains(work.pair, work.core, work.strict, work.data)


def run(
    work: Work,
    domains: CrossDomain,
    pretrained: PretrainedFactors,
    progress: Callable[[], Progress],
) -> Result:
    """Fit, predict and judge.

    Args:
        work: what to run.
        domains: the pair's.
        pretrained: asked for pretrained factors.
        progress: makes what is told of each fit's stages and epochs.

    Raises:
        ScdrError: training diverged, or the split leaves too few users.
    """
    split = cold_start_split(
        domains,
        beta=work.beta,
        seed=work.seed,
        validation_fraction=work.validation_fraction,
    )
    started = time.perf_counter()
    predictor, tuned = fit(work, split, pretrained, progress)
    clip = work.clip or work.method in CONTROLS
    predictions = {
        point: predict_test(predictor, split, clip=clip, optimise=point)
        for point in method_of(work).points
    }
    seconds = time.perf_counter() - started
    users = [_user_table(point, split.test, found) for point, found in predictions.items()]
    counts = {
        "n_test": len(split.test),
        "n_test_users": len(users[0]),
        "n_test_unseen_item": split.n_test_ratings_unseen_item,
        "n_train_users": len(split.training.train_pairs),
        "n_validation_users": len(split.training.validation_pairs),
    }
    return Result(
        metrics=[
            {"optimise": point} | _metrics(split.test, found) | counts
            for point, found in predictions.items()
        ],
        users=pl.concat(users),
        seconds=seconds,
        tuned=tuned,
    )


def _metrics(test: Interactions, predictions: NDArray[np.float32]) -> dict[str, Any]:
    metrics = dataclasses.asdict(metrics_of(test, predictions))
    for name in ("mae", "rmse"):
        metrics[f"{name}_low"], metrics[f"{name}_high"] = metrics.pop(f"{name}_ci95")
    return metrics


def _user_table(
    point: Optimise | None, test: Interactions, predictions: NDArray[np.float32]
) -> pl.DataFrame:
    errors = user_errors(test.users, test.ratings, predictions)
    return pl.DataFrame(
        {
            "optimise": pl.repeat(point, len(errors.users), dtype=pl.String, eager=True),
            "user": pl.Series(test.user_ids[errors.users], dtype=pl.String),
            "n_ratings": errors.ratings,
            "mae": errors.mae,
            "rmse": errors.rmse,
        }
    )


def method_of(work: Work) -> Method:
    """The run's method or control."""
    return CONTROLS.get(work.method) or METHODS[work.method]


def fit(
    work: Work,
    split: ColdStartSplit,
    pretrained: PretrainedFactors,
    progress: Callable[[], Progress],
) -> tuple[FactorPredictor, Tuned | None]:
    """The run's method on its split, and the search over hyper-parameters if there was one.

    Args:
        work: what to run.
        split: of the pair's domains.
        pretrained: asked for pretrained factors.
        progress: makes what is told of each fit's stages and epochs.

    Raises:
        ScdrError: training diverged.
    """
    method = method_of(work)
    context: Callable[[], FitContext] = lambda: FitContext(  # noqa: E731
        seed=work.seed,
        device=torch.device(work.device),
        threads=work.threads,
        progress=progress(),
        pretrained=pretrained,
    )
    if not work.trials or not method.search_space:
        return method.fit(split.training, work.hyper, context()), None
    return tune(method, work.hyper, split.training, context, trials=work.trials, clip=work.clip)


@lru_cache(maxsize=1)
def _domains(pair: PairConfig, core: int, strict: bool, data: str) -> CrossDomain:
    domains = load(pair, Progress(), core=core, strict=strict).domains
    if domains_digest(domains) != data:
        raise InputError(
            "the data have changed while the comparison ran",
            where=pair.name,
            fix="run it again when they no longer change",
        )
    return domains

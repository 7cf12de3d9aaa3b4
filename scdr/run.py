"""One run: read, split, fit, evaluate, write the run folder."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import torch
from numpy.typing import NDArray

from scdr.checkpoints import Checkpoints
from scdr.config import RunConfig, Settings
from scdr.data import (
    ColdStartSplit,
    Interactions,
    cold_start_split,
    dataset_card,
    source_users,
)
from scdr.device import available_threads, environment, resolve_device
from scdr.errors import InputError
from scdr.evaluation import RatingMetrics, slice_errors
from scdr.figure import draw_report
from scdr.fingerprint import code_digest, digest, domains_digest, method_digest
from scdr.folder import (
    CONFIG,
    REPORT,
    RunFolder,
    choose_folder,
    how_to_go_on,
    is_finished,
    named_folder,
    whole_folder,
)
from scdr.loading import Loaded, load
from scdr.methods import CONTROLS, METHODS, FactorPredictor, FitContext
from scdr.prediction import judge_distribution, metrics_of, predict_test, predict_validation
from scdr.progress import Progress
from scdr.whole_file import sync, whole_file

SCHEMA = 2
CODE = ("checkpoints.py", "data", "methods", "models", "ops")
"""What a checkpoint is computed by."""


def run(settings: Settings, progress: Progress) -> tuple[Path, dict[str, Any]]:
    """Run one method on one split, beside the controls, or go on with such a run.

    Returns:
        The run folder and its report.

    Raises:
        ScdrError: bad input, an unusable device, or training that diverged. Nothing is left
            behind then but the checkpoints of a run that can be resumed.
        KeyboardInterrupt: it was interrupted; the message says how to go on, if it can be.
    """
    config = settings.run
    device = resolve_device(config.device)
    threads = config.threads or available_threads()
    torch.set_num_threads(threads)
    settings = settings.repeatable("cuda" if device.type == "cuda" else "cpu")
    if config.resume and config.out and not config.overwrite:
        finished = named_folder(config.out)
        if is_finished(finished):
            return finished, read_report(finished)
    folder = choose_folder(config.out, name=config.method, overwrite=config.overwrite)
    try:
        with (
            progress.timed("total"),
            whole_folder(
                folder,
                overwrite=config.overwrite and config.out is not None,
                resume=config.resume,
                numbered=config.out is None,
            ) as writing,
        ):
            if not (writing.partial / REPORT).exists():
                _train(settings, writing, progress, device, threads)
            report = read_report(writing.partial)
    except KeyboardInterrupt as stop:
        raise type(stop)(how_to_go_on(folder) or "") from None
    return writing.folder, report


def _train(
    settings: Settings,
    writing: RunFolder,
    progress: Progress,
    device: torch.device,
    threads: int,
) -> None:
    """Read, fit and evaluate, and write all files of a run; the report, last, makes it finished."""
    config, partial = settings.run, writing.partial
    if not writing.resumed:
        writing.start(settings.to_dict(), overwrite=config.overwrite)
    with progress.timed("read"):
        loaded = load(config, progress, core=config.core, strict=config.strict)
    split = cold_start_split(
        loaded.domains,
        beta=config.beta,
        seed=config.seed,
        validation_fraction=config.validation_fraction,
    )
    checkpoints = Checkpoints(
        writing.checkpoints,
        every=config.checkpoint_every,
        fingerprint=cache(lambda: _fingerprint(settings, loaded)),
        resumed=writing.resumed,
        note=progress.note,
    )
    context = FitContext(
        seed=config.seed,
        device=device,
        threads=threads,
        progress=progress,
        checkpoints=checkpoints,
    )
    progress.log_to(partial / "progress.jsonl")
    predictor = METHODS[config.method].fit(split.training, settings.hyper, context)
    with progress.timed("evaluate"):
        predictions = predict_test(predictor, split, clip=config.clip)
        report = _evaluate(settings, loaded, split, predictor, predictions, context)
        if config.save_predictions:
            _write_predictions(partial / "predictions.parquet", split, predictor, predictions)
    _write_folder(partial, settings, loaded, split, predictor)
    progress.end_log()
    report["seconds"] = _seconds(progress)
    report["config"] = settings.to_dict()
    report["environment"] = environment(device, threads)
    draw_report(report, partial / "progress.jsonl", partial / "report.png")
    for path in partial.iterdir():
        sync(path)
    with whole_file(partial / REPORT) as path:
        path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))


def read_report(folder: Path) -> dict[str, Any]:
    """The report of a finished run.

    Raises:
        InputError: it can't be read, or was written by another version of scdr.
    """
    try:
        report: dict[str, Any] = orjson.loads((folder / REPORT).read_bytes())
        schema = report["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "the run folder is incomplete: its report can't be read",
            where=str(folder / REPORT),
            fix="give the folder of a finished run of python -m scdr.train",
        ) from error
    if schema != SCHEMA:
        raise InputError(
            f"the run is of another version of scdr: its report has schema {schema}, this one "
            f"reads {SCHEMA}",
            where=str(folder),
            fix="train it again with this version",
        )
    return report


def _fingerprint(settings: Settings, loaded: Loaded) -> dict[str, str]:
    """Digests of what a checkpoint depends on; on threads it does not."""
    configuration = {key: value for key, value in settings.to_dict().items() if key != "threads"}
    return {
        "configuration": digest(configuration),
        "data": domains_digest(loaded.domains),
        "code": digest(code_digest(*CODE), method_digest(METHODS[settings.run.method])),
    }


def _evaluate(
    settings: Settings,
    loaded: Loaded,
    split: ColdStartSplit,
    predictor: FactorPredictor,
    predictions: NDArray[np.float32],
    context: FitContext,
) -> dict[str, Any]:
    """Everything in the report that does not depend on the clock."""
    config = settings.run
    test = metrics_of(split.test, predictions)
    controls = {name: _control_metrics(name, split, context) for name in CONTROLS}
    report = {
        "schema": SCHEMA,
        "method": config.method,
        "preset": config.preset,
        "beta": config.beta,
        "seed": config.seed,
        "device": context.device.type,
        "pair": loaded.domains.name,
        "clipped": config.clip,
        "selection": getattr(getattr(settings.hyper, "mapping", None), "select", "last"),
        "data": _data(split),
        "test": dataclasses.asdict(test),
        "validation": _validation(config, predictor, split),
        "distribution": judge_distribution(predictor, split, clip=config.clip),
        "slices": slice_errors(split, predictions),
        "controls": {name: dataclasses.asdict(metrics) for name, metrics in controls.items()},
        "reading": [dataclasses.asdict(report) for report in loaded.reports],
    }
    if loaded.planted:
        best = loaded.planted.best_rmse(split.test_rows)
        control = controls["bias_transfer"].rmse
        report["planted"] = {
            "signal": loaded.planted.signal,
            "best_rmse": best,
            "bias_transfer_rmse": control,
            "gap_closed": (control - test.rmse) / (control - best),
        }
    return report


def _validation(
    config: RunConfig, predictor: FactorPredictor, split: ColdStartSplit
) -> dict[str, Any] | None:
    rows = split.training.validation
    if not len(rows):
        return None
    predictions = predict_validation(predictor, split.training, clip=config.clip)
    return dataclasses.asdict(metrics_of(rows, predictions))


def _control_metrics(name: str, split: ColdStartSplit, context: FitContext) -> RatingMetrics:
    control = CONTROLS[name]
    predictor = control.fit(split.training, control.presets["default"], context)
    return metrics_of(split.test, predict_test(predictor, split, clip=True))


def _data(split: ColdStartSplit) -> dict[str, Any]:
    def counts(domain: Interactions) -> dict[str, int]:
        return {"users": domain.n_users, "items": domain.n_items, "ratings": len(domain)}

    domains = split.domains
    return {
        "source": counts(domains.source),
        "target": counts(domains.target),
        "overlap_users": len(domains.overlap),
        "train_users": len(split.training.train_pairs),
        "validation_users": len(split.training.validation_pairs),
        "test_users": len(split.test_pairs),
        "test_ratings": len(split.test),
        "test_ratings_unseen_item": split.n_test_ratings_unseen_item,
    }


def _seconds(progress: Progress) -> dict[str, float]:
    names = ("read", "pretrain", "mapping", "evaluate", "total")
    return {name: round(progress.elapsed(name), 4) for name in names}


def _write_folder(
    folder: Path,
    settings: Settings,
    loaded: Loaded,
    split: ColdStartSplit,
    predictor: FactorPredictor,
) -> None:
    """Everything but the report, which makes the folder a finished run."""
    manifest = orjson.dumps(split.manifest(), option=orjson.OPT_INDENT_2)
    (folder / "split.json").write_bytes(manifest)
    (folder / CONFIG).write_text(settings.to_toml(), encoding="utf-8")
    card = dataset_card(loaded.domains, loaded.reports)
    (folder / "data.md").write_text(card, encoding="utf-8")
    known = split.training.target.ratings
    predictor.save(
        folder / "model.safetensors",
        domains=loaded.domains,
        metadata={
            "method": settings.run.method,
            "rating_range": [float(known.min()), float(known.max())],
            "clip": settings.run.clip,
        },
    )


def _write_predictions(
    path: Path, split: ColdStartSplit, predictor: FactorPredictor, predictions: NDArray[np.float32]
) -> None:
    test = split.test
    columns: dict[str, Any] = {
        "user": pl.Series(test.user_ids[test.users], dtype=pl.String),
        "item": pl.Series(test.item_ids[test.items], dtype=pl.String),
        "rating": test.ratings,
        "prediction": predictions,
    }
    if predictor.distribution is not None:
        users = source_users(split.test_pairs, test)
        columns["deviation"] = predictor.deviation(users, test.items)
    pl.DataFrame(columns).write_parquet(path)

"""One run: read, split, fit, evaluate, write the run folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import torch
from numpy.typing import NDArray

from scdr.config import RunConfig, Settings
from scdr.data import (
    ColdStartSplit,
    CrossDomain,
    Interactions,
    Planted,
    ReadReport,
    cold_start_split,
    cross_domain,
    dataset_card,
    example_paths,
    planted,
    preflight,
    preset,
    read_domain,
    source_users,
)
from scdr.device import available_threads, environment, resolve_device
from scdr.errors import InputError
from scdr.evaluation import RatingMetrics, rating_metrics, slice_errors
from scdr.figure import draw_report
from scdr.folder import REPORT, choose_folder, whole_folder
from scdr.methods import CONTROLS, METHODS, FactorPredictor, FitContext
from scdr.progress import Progress

SCHEMA = 1


@dataclass(frozen=True)
class Loaded:
    """The data of a run.

    Attributes:
        domains: source, target and their overlap users.
        reports: what was found in the files; empty for synthetic data.
        planted: the truth behind synthetic data; None for files.
    """

    domains: CrossDomain
    reports: tuple[ReadReport, ...] = ()
    planted: Planted | None = None


def run(settings: Settings, progress: Progress) -> tuple[Path, dict[str, Any]]:
    """Run one method on one split, beside the controls.

    Returns:
        The run folder and its report.

    Raises:
        ScdrError: bad input, an unusable device, or training that diverged. Nothing is left
            behind then.
    """
    config = settings.run
    device = resolve_device(config.device)
    threads = config.threads or available_threads()
    torch.set_num_threads(threads)
    folder = choose_folder(config.out, name=config.method, overwrite=config.overwrite)
    context = FitContext(seed=config.seed, device=device, threads=threads, progress=progress)
    with progress.timed("total"):
        with progress.timed("read"):
            loaded = load(config, progress)
        split = cold_start_split(
            loaded.domains,
            beta=config.beta,
            seed=config.seed,
            validation_fraction=config.validation_fraction,
        )
        replace = config.overwrite and config.out is not None
        with whole_folder(folder, overwrite=replace) as writing:
            partial = writing.partial
            progress.log_to(partial / "progress.jsonl")
            predictor = METHODS[config.method].fit(split.training, settings.hyper, context)
            with progress.timed("evaluate"):
                predictions = _predict(config, predictor, split, split.test_pairs, split.test)
                report = _evaluate(settings, loaded, split, predictor, predictions, context)
                if config.save_predictions:
                    _write_predictions(partial / "predictions.parquet", split, predictions)
            _write_folder(partial, settings, loaded, split, predictor, device)
            report["seconds"] = _seconds(progress)
            report["config"] = settings.to_dict()
            report["environment"] = environment(device, threads)
            draw_report(report, partial / "progress.jsonl", partial / "report.png")
            (partial / REPORT).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    return writing.folder, report


def load(config: RunConfig, progress: Progress) -> Loaded:
    """Read or make the two domains that a configuration names.

    Raises:
        InputError: the options contradict each other, a file can't be used, or no user is in both.
    """
    files = [path for path in (config.source, config.target) if path is not None]
    _check_used(config, files)
    if config.synthetic:
        if files:
            raise InputError(
                "files and synthetic data at once", where="--synthetic", fix="give one of them"
            )
        made = _synthetic(config)
        return Loaded(made.domains, planted=made)
    if len(files) == 1:
        missing = "--target" if config.target is None else "--source"
        raise InputError(f"{missing} is missing", fix="give both domains, or neither")
    paths = files or [str(path) for path in example_paths()]
    source, source_report = _read("source", paths[0], config, progress)
    target, target_report = _read("target", paths[1], config, progress)
    pair = cross_domain(source, target, name=" to ".join(_stem(path) for path in paths))
    preflight(pair)
    return Loaded(pair, reports=(source_report, target_report))


def _check_used(config: RunConfig, files: list[str]) -> None:
    """Refuse options that would do nothing."""
    if config.scale != 1 and not config.synthetic:
        raise InputError("--scale without synthetic data", fix="add --synthetic, or leave it out")
    for role in ("source", "target"):
        chosen = getattr(config, f"{role}_columns") or getattr(config, f"{role}_format") != "auto"
        if chosen and not files:
            raise InputError(
                f"a format or columns of the {role} without files",
                fix="give --source and --target, or leave it out",
            )


def _read(
    role: str, path: str, config: RunConfig, progress: Progress
) -> tuple[Interactions, ReadReport]:
    with progress.reading(f"read {role}") as advance:
        return read_domain(
            path,
            format=getattr(config, f"{role}_format"),
            columns=columns_of(getattr(config, f"{role}_columns"), where=f"--{role}-columns"),
            core=config.core,
            strict=config.strict,
            progress=advance,
        )


def columns_of(option: str | None, *, where: str) -> dict[str, str | int] | None:
    """The columns that `user=NAME,item=NAME,...` names; numbers are positions from 0.

    Raises:
        InputError: it is not of that form.
    """
    if option is None:
        return None
    columns: dict[str, str | int] = {}
    for part in option.split(","):
        role, equals, name = part.partition("=")
        if role not in ("user", "item", "rating", "time") or not equals or not name:
            raise InputError(
                f"{part!r} does not name a column",
                where=where,
                fix="write it as user=NAME,item=NAME,rating=NAME,time=NAME, or with positions",
            )
        columns[role] = int(name) if name.isdecimal() else name
    return columns


def _synthetic(config: RunConfig) -> Planted:
    if config.synthetic == "planted":
        if config.scale != 1:
            raise InputError(
                "the planted pair has one size", where="--scale", fix="leave --scale out"
            )
        return planted(signal=config.signal, seed=config.data_seed)
    return preset(
        str(config.synthetic), scale=config.scale, signal=config.signal, seed=config.data_seed
    )


def _stem(path: str) -> str:
    return Path(path).name.split(".")[0]


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
    test = _metrics(split.test, predictions)
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


def _predict(
    config: RunConfig,
    predictor: FactorPredictor,
    split: ColdStartSplit,
    pairs: NDArray[np.int32],
    rows: Interactions,
) -> NDArray[np.float32]:
    """Predictions for the target rows of the users in `pairs`, clipped where the run says so."""
    predictions = predictor.predict(source_users(pairs, rows), rows.items)
    return _clip(predictions, split) if config.clip else predictions


def _clip(predictions: NDArray[np.float32], split: ColdStartSplit) -> NDArray[np.float32]:
    known = split.training.target.ratings
    return np.clip(predictions, known.min(), known.max())


def _metrics(rows: Interactions, predictions: NDArray[np.float32]) -> RatingMetrics:
    return rating_metrics(rows.users, rows.ratings, predictions)


def _validation(
    config: RunConfig, predictor: FactorPredictor, split: ColdStartSplit
) -> dict[str, Any] | None:
    pairs, rows = split.training.validation_pairs, split.training.validation
    if not len(rows):
        return None
    return dataclasses.asdict(_metrics(rows, _predict(config, predictor, split, pairs, rows)))


def _control_metrics(name: str, split: ColdStartSplit, context: FitContext) -> RatingMetrics:
    control = CONTROLS[name]
    predictor = control.fit(split.training, control.presets["default"], context)
    users = source_users(split.test_pairs, split.test)
    return _metrics(split.test, _clip(predictor.predict(users, split.test.items), split))


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
    device: torch.device,
) -> None:
    """Everything but the report, which makes the folder a finished run."""
    manifest = orjson.dumps(split.manifest(), option=orjson.OPT_INDENT_2)
    (folder / "split.json").write_bytes(manifest)
    kept = dataclasses.replace(
        settings,
        run=dataclasses.replace(
            settings.run,
            device="cuda" if device.type == "cuda" else "cpu",
            source=_absolute(settings.run.source),
            target=_absolute(settings.run.target),
        ),
    )
    (folder / "config.toml").write_text(kept.to_toml(), encoding="utf-8")
    card = dataset_card(loaded.domains, loaded.reports)
    (folder / "data.md").write_text(card, encoding="utf-8")
    known = split.training.target.ratings
    predictor.save(
        folder / "model.safetensors",
        user_ids=loaded.domains.source.user_ids,
        item_ids=loaded.domains.target.item_ids,
        metadata={
            "method": settings.run.method,
            "rating_range": [float(known.min()), float(known.max())],
            "clip": settings.run.clip,
        },
    )


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _write_predictions(path: Path, split: ColdStartSplit, predictions: NDArray[np.float32]) -> None:
    test = split.test
    pl.DataFrame(
        {
            "user": pl.Series(test.user_ids[test.users], dtype=pl.String),
            "item": pl.Series(test.item_ids[test.items], dtype=pl.String),
            "rating": test.ratings,
            "prediction": predictions,
        }
    ).write_parquet(path)

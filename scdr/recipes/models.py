"""Fitted models to analyse: trained for a recipe, or read from the folder of a run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

from scdr.config import from_dict
from scdr.data import ColdStartSplit, cold_start_split
from scdr.errors import InputError
from scdr.experiments.cache import FactorCache
from scdr.experiments.work import Work, fit, read_domains
from scdr.fingerprint import digest
from scdr.folder import REPORT
from scdr.loading import load
from scdr.methods import METHODS, FactorPredictor
from scdr.options import read_toml
from scdr.progress import Progress
from scdr.run import read_report

PARTS = ("config.toml", "split.json", "model.safetensors")
"""What a run folder must hold beside its report."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to be fitted or read, as tables name it; travels between processes.

    Attributes:
        pair: name of the pair of domains.
        beta: share of the overlap users that are test users.
        seed: of split and training.
        method: name of the method.
        preset: name of the preset.
        label: what figures call it.
        k: ascent steps that the mapping was trained with; None where the method has none.
        rho: radius that it was trained with; None as for k, and for k = 0.
        source: a run of a comparison, or a run folder.
        digest: of all that the model depends on.
    """

    pair: str
    beta: float
    seed: int
    method: str
    preset: str
    label: str
    k: int | None
    rho: float | None
    source: Work | Path
    digest: str


@dataclass(frozen=True)
class FittedModel:
    """A fitted method and what it was fitted on.

    Attributes:
        predictor: the method.
        split: training data and test ratings.
        hyper: hyper-parameters.
        clip: whether predictions are clipped.
        device: of the predictor.
    """

    predictor: FactorPredictor
    split: ColdStartSplit
    hyper: Any
    clip: bool
    device: torch.device


def trained_subject(work: Work, hyper: Any = None, *, label: str | None = None) -> Subject:
    """The model of one run of a comparison.

    Args:
        work: the run.
        hyper: other hyper-parameters than the run's.
        label: what figures call it; None is the method's title.
    """
    if hyper is not None and hyper != work.hyper:
        config_hash = digest(work.config_hash, dataclasses.asdict(hyper))
        work = dataclasses.replace(work, hyper=hyper, config_hash=config_hash)
    k, rho = sharpness_of(work.hyper)
    return Subject(
        pair=work.pair.name,
        beta=work.beta,
        seed=work.seed,
        method=work.method,
        preset=work.preset,
        label=label or METHODS[work.method].title,
        k=k,
        rho=rho,
        source=work,
        digest=work.config_hash,
    )


def read_subject(folder: Path) -> Subject:
    """The model in a run folder.

    Raises:
        InputError: the folder is no finished run, was written by another version of scdr, or its
            method has no mapping.
    """
    report = read_run(folder)
    method = report["method"]
    if method in tuple(METHODS) and not METHODS[method].mapping_based:
        raise InputError(
            f"the method {method} has no mapping between domains to analyse",
            where=str(folder),
            fix="give runs of mapping-based methods",
        )
    settings = from_dict(read_toml(str(folder / "config.toml")), where=str(folder / "config.toml"))
    k, rho = sharpness_of(settings.hyper)
    return Subject(
        pair=report["pair"],
        beta=report["beta"],
        seed=report["seed"],
        method=method,
        preset=report["preset"],
        label=METHODS[method].title,
        k=k,
        rho=rho,
        source=folder.absolute(),
        digest=digest(*((folder / name).read_bytes().hex() for name in PARTS)),
    )


def read_run(folder: Path) -> dict[str, Any]:
    """The report of a finished run, all other parts of which are there.

    Raises:
        InputError: the folder is no finished run, or was written by another version of scdr.
    """
    fix = "give the folder of a finished run of python -m scdr.train"
    if not folder.is_dir():
        raise InputError("there is no such run folder", where=str(folder), fix=fix)
    missing = [name for name in (REPORT, *PARTS) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"the run folder is incomplete: it has no {' and no '.join(missing)}",
            where=str(folder),
            fix=fix,
        )
    return read_report(folder)


def sharpness_of(hyper: Any) -> tuple[int | None, float | None]:
    """The k and rho that a mapping is trained with; None where the method has no such steps."""
    mapping = getattr(hyper, "mapping", None)
    steps = getattr(mapping, "steps", None)
    return steps, getattr(mapping, "radius", None) if steps else None


def fitted(subject: Subject, cache: FactorCache) -> FittedModel:
    """Train the model, or read it.

    Raises:
        ScdrError: training diverged, the data can't be read, or they have changed since.
    """
    if isinstance(subject.source, Path):
        return _read(subject.source)
    work = subject.source
    split = cold_start_split(
        read_domains(work),
        beta=work.beta,
        seed=work.seed,
        validation_fraction=work.validation_fraction,
    )
    predictor, _ = fit(work, split, cache, Progress)
    return FittedModel(predictor, split, work.hyper, work.clip, torch.device(work.device))


def _read(folder: Path) -> FittedModel:
    settings = from_dict(read_toml(str(folder / "config.toml")), where=str(folder / "config.toml"))
    config = settings.run
    domains = load(config, Progress(), core=config.core, strict=config.strict).domains
    split = cold_start_split(
        domains,
        beta=config.beta,
        seed=config.seed,
        validation_fraction=config.validation_fraction,
    )
    saved = FactorPredictor.load(folder / "model.safetensors")
    same = (
        orjson.loads(orjson.dumps(split.manifest()))
        == orjson.loads((folder / "split.json").read_bytes())
        and _equal(saved.user_ids, domains.source.user_ids)
        and _equal(saved.item_ids, domains.target.item_ids)
    )
    if not same:
        raise InputError(
            "the data are not those that the run was trained on",
            where=str(folder),
            fix="train again on the data as they are",
        )
    return FittedModel(saved.predictor, split, settings.hyper, config.clip, torch.device("cpu"))


def _equal(one: NDArray[np.object_], other: NDArray[np.object_]) -> bool:
    return bool(np.array_equal(one, other))

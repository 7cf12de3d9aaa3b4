"""Estimates of a comparison: hand-worked plans, and probes against a clock of our own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scdr.data import from_columns
from scdr.experiments import probe as probing
from scdr.experiments.comparison import plan, read_pairs
from scdr.experiments.config import CompareConfig, PairConfig, from_dict
from scdr.experiments.estimate import as_table, estimate, probe_methods
from scdr.experiments.probe import Pretraining, Probe, probe
from scdr.experiments.table import to_markdown
from scdr.experiments.work import Work
from scdr.methods import METHODS
from scdr.models import Factors, PretrainConfig
from scdr.progress import Progress


def work(
    method: str, *, pair: str = "a", beta: float = 0.5, seed: int = 0, trials: int = 0
) -> Work:
    return Work(
        pair=PairConfig(name=pair),
        data="",
        beta=beta,
        seed=seed,
        preset="paper",
        method=method,
        backbone=None,
        hyper=METHODS[method].presets["paper"],
        trials=trials,
        core=5,
        strict=False,
        validation_fraction=0.0,
        clip=True,
        config_hash="",
        device="cpu",
        threads=1,
        cache=Path(),
        cache_limit=0,
    )


SHARED = (Pretraining("mf", source=True, seconds=100.0), Pretraining("mf t", False, 10.0))
PROBES = {
    ("a", "emcdr"): Probe(
        load=7.0, load_memory=9, pretraining=SHARED, mapping=40.0, rest=1.0, memory=3
    ),
    ("a", "clcdr"): Probe(pretraining=SHARED, mapping=4.0, rest=2.0, memory=5),
}


def test_pretraining_is_shared_as_the_cache_does() -> None:
    works = [
        work(m, beta=b, seed=s) for m in ("emcdr", "clcdr") for b in (0.2, 0.5) for s in (0, 1)
    ]
    found = estimate(works, PROBES, jobs=1)
    emcdr, clcdr = found.methods["emcdr"], found.methods["clcdr"]
    # The source once a seed, the target once a seed and beta, and all of it by the first method.
    assert emcdr.pretrain == 2 * 100 + 4 * 10 and clcdr.pretrain == 0
    # The stage has as many users to train on as are not test users.
    assert emcdr.mapping == pytest.approx(2 * 40 * (0.8 + 0.5))
    assert (emcdr.runs, emcdr.rest, clcdr.rest) == (4, 4 * 1.0, 4 * 2.0)
    # Read to be checked, and by the process that runs.
    assert found.seconds == pytest.approx(2 * 7 + emcdr.seconds + clcdr.seconds)
    assert found.memory == 9  # reading takes more than any run


def test_domains_side_by_side_take_as_long_as_the_longer_one() -> None:
    probes = {("a", "scdr"): dataclasses.replace(PROBES["a", "emcdr"], side_by_side=True)}
    assert estimate([work("scdr")], probes, jobs=1).methods["scdr"].pretrain == 100


def test_a_search_trains_for_each_trial() -> None:
    probes = {("a", "scdr"): PROBES["a", "emcdr"]}
    time = estimate([work("scdr", trials=3)], probes, jobs=1).methods["scdr"]
    assert (time.pretrain, time.mapping) == (3 * 110, 3 * 40 * 0.5)


def test_each_run_goes_to_the_process_that_is_free_first() -> None:
    probes = {("a", "tgt"): Probe(load=3.0, rest=10.0), ("a", "cmf"): Probe(rest=4.0)}
    works = [work(method, seed=seed) for method in ("tgt", "cmf") for seed in (0, 1)]
    # 3 + 10 + 4 in each of the two processes, after 3 s of reading.
    assert estimate(works, probes, jobs=2).seconds == pytest.approx(3 + 17)


def test_what_can_not_be_probed_is_named() -> None:
    probes = {("a", "tgt"): Probe(error="training diverged")}
    table = as_table(estimate([work("tgt")], probes, jobs=1))
    assert "no estimate of tgt on a: training diverged" in to_markdown(table)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Replaces the probe's clock; the result lets time go by."""
    now = [0.0]
    monkeypatch.setattr(probing.time, "perf_counter", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def trains_in(
    clock: Callable[[float], None], *, setup: float, plain: float, sharp: float
) -> Callable[..., Factors]:
    def pretrain(interactions: object, config: PretrainConfig, **options: Any) -> Factors:
        clock(setup)
        for epoch in range(config.epochs):
            seconds = sharp if epoch >= config.epochs - config.sharp_epochs else plain
            for slice_ in range(1, 11):
                clock(seconds / 10)
                options["between_slices"](slice_, 10)
            options["advance"](loss=1.0)
        return Factors(torch.zeros(3, 2), torch.zeros(3, 2))

    return pretrain


@pytest.mark.parametrize(
    ("epochs", "sharp_epochs", "expected"),
    [(20, 10, 2 + 10 * 0.5 + 10 * 1.5), (20, 0, 2 + 20 * 0.5), (2, 1, 2 + 0.5 + 1.5), (0, 0, 2)],
)
def test_a_few_epochs_tell_of_all(
    epochs: int,
    sharp_epochs: int,
    expected: float,
    clock: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probing, "pretrain", trains_in(clock, setup=2, plain=0.5, sharp=1.5))
    config = PretrainConfig(epochs=epochs, sharp_epochs=sharp_epochs)
    _, seconds = probing._few_epochs(from_columns([], [], []), config, (0, 0), torch.device("cpu"))
    assert seconds == pytest.approx(expected)


def test_an_epoch_that_takes_too_long_is_cut(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "pretrain", trains_in(clock, setup=2, plain=50, sharp=50))
    config = PretrainConfig(epochs=20, sharp_epochs=0)
    _, seconds = probing._few_epochs(from_columns([], [], []), config, (0, 0), torch.device("cpu"))
    assert seconds == pytest.approx(2 + 20 * 50, rel=0.01)


@pytest.fixture(scope="module")
def works() -> list[Work]:
    config: CompareConfig = from_dict(
        {
            "pairs": ["small=synthetic:movies-music@0.01"],
            "betas": [0.5],
            "seeds": [0],
            "methods": ["task_mapping", "scdr_minus", "emcdr"],
            "preset": "paper",
            "jobs": 1,
        }
    )
    return plan(config, read_pairs(config, Progress()))


def test_probes_of_methods(works: list[Work]) -> None:
    probes = probe_methods(works, jobs=1, progress=Progress())
    assert {method for _, method in probes} == {work.method for work in works}
    assert all(found.error is None and found.memory > 0 for found in probes.values())
    assert all(found.rest > 0 for found in probes.values())
    keys = {
        method: {part.key for part in found.pretraining} for (_, method), found in probes.items()
    }
    assert keys["task_mapping"] == keys["scdr_minus"] != keys["emcdr"]
    assert len(keys["emcdr"]) == 2 and not keys["item_mean"]
    assert probes["small", "emcdr"].mapping > 0 == probes["small", "item_mean"].mapping


def test_a_probe_that_fails_says_why(works: list[Work]) -> None:
    task_mapping = next(work for work in works if work.method == "task_mapping")
    pretrain = dataclasses.replace(task_mapping.hyper.pretrain, learning_rate=1e30)
    hyper = dataclasses.replace(task_mapping.hyper, pretrain=pretrain)
    found = probe(dataclasses.replace(task_mapping, hyper=hyper))
    assert found.error is not None and "diverged" in found.error

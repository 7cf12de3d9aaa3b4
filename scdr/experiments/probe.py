"""How long a run takes and what memory it needs, from a few epochs of it.

A probe is a run like any other, on all of the data, cut short in two places: of each pretraining
two plain epochs and one sharp one are trained, for `PRETRAIN_SECONDS` at most, and of the mapping
stage `MAPPING_EPOCHS`. What is left out is taken to go on as it went. Methods whose training does
not consist of such epochs are run whole.
"""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from scdr.data import Interactions
from scdr.errors import ScdrError
from scdr.experiments.work import Work, read_domains, run
from scdr.fingerprint import digest
from scdr.models import Factors, PretrainConfig, pretrain, pretrain_graph
from scdr.progress import Advance, Progress

PRETRAIN_SECONDS = 8.0
MAPPING_EPOCHS = 3


@dataclass(frozen=True, slots=True)
class Pretraining:
    """One domain's factors, for a run that finds none in the cache.

    Attributes:
        key: of what they depend on beside the split.
        source: whether all betas share them.
        seconds: to train them.
    """

    key: str
    source: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What one run of a method takes on one pair, in seconds and bytes.

    Attributes:
        load: of reading the pair, once for each process.
        load_memory: the most that its process held until then.
        pretraining: of each domain that the run asks factors for.
        side_by_side: whether these are trained at the same time.
        mapping: of the mapping stage, at the beta of the probe.
        rest: of everything else.
        memory: the most that its process held afterwards.
        error: why there is no estimate, in one line; None where there is one.
    """

    load: float = 0.0
    load_memory: int = 0
    pretraining: tuple[Pretraining, ...] = ()
    side_by_side: bool = False
    mapping: float = 0.0
    rest: float = 0.0
    memory: int = 0
    error: str | None = None


def probe(work: Work) -> Probe:
    """Run some epochs; an error is a result as well."""
    torch.set_num_threads(work.threads)
    _forget_peak()
    started = time.perf_counter()
    try:
        domains = read_domains(work)
        load, load_memory = time.perf_counter() - started, held_memory(most=True)
        _forget_peak()
        factors, watch = _ProbedFactors(), _Watch()
        shortened, epochs = _shortened(work.hyper)
        short = dataclasses.replace(work, hyper=shortened, trials=0)
        started = time.perf_counter()
        run(short, domains, factors, lambda: watch)
        total = time.perf_counter() - started
    except ScdrError as error:
        return Probe(error=str(error))
    except Exception as error:
        return Probe(error=f"{type(error).__name__}: {error}".splitlines()[0])
    pretraining = watch.elapsed("pretrain") if factors.found else 0.0
    mapping = watch.elapsed("mapping")
    return Probe(
        load=load,
        load_memory=load_memory,
        pretraining=tuple(factors.found),
        side_by_side=factors.overlapped,
        mapping=mapping + max(epochs - len(watch.marks) + 1, 0) * watch.epoch(),
        rest=total - pretraining - mapping,
        memory=held_memory(most=True),
    )


def died(work: Work) -> Probe:
    """The probe of a run whose process ended."""
    return Probe(error="its process ended without a result, as for lack of memory")


def _shortened(hyper: Any) -> tuple[Any, int]:
    """Hyper-parameters with few epochs of the mapping stage, and how many there are in full."""
    mapping = getattr(hyper, "mapping", None)
    epochs = getattr(mapping, "epochs", None)
    if mapping is None or epochs is None:
        return hyper, 0
    few = dataclasses.replace(mapping, epochs=min(epochs, MAPPING_EPOCHS))
    return dataclasses.replace(hyper, mapping=few), int(epochs)


class _Watch(Progress):
    """Knows when the mapping stage began and when each of its epochs ended."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[float] = []

    @contextmanager
    def stage(self, name: str, epochs: int) -> Iterator[Advance]:
        with super().stage(name, epochs) as advance:
            if name != "mapping":
                yield advance
                return
            self.marks = [time.perf_counter()]

            def told(**values: float) -> None:
                advance(**values)
                self.marks.append(time.perf_counter())

            yield told

    def epoch(self) -> float:
        """Seconds of an epoch; the first has to warm up."""
        later = self.marks[1:] if len(self.marks) > 2 else self.marks
        return (later[-1] - later[0]) / max(len(later) - 1, 1) if later else 0.0


class _EnoughError(Exception):
    """Ends a pretraining that has gone on for long enough."""


class _ProbedFactors:
    """Trains for a few epochs, and tells how long all of them would take."""

    def __init__(self) -> None:
        self.found: list[Pretraining] = []
        self._spans: list[tuple[float, float]] = []

    @property
    def overlapped(self) -> bool:
        """Whether a pretraining began while another one ran."""
        spans = sorted(self._spans)
        return any(later < end for (_, end), (later, _) in pairwise(spans))

    def get_or_train(
        self,
        interactions: Interactions,
        config: PretrainConfig,
        *,
        seed: tuple[int, ...],
        device: torch.device,
        train: Callable[[], Factors],
    ) -> Factors:
        began = time.perf_counter()
        few_epochs = _few_epochs if config.backbone == "mf" else _few_graph_epochs
        factors, seconds = few_epochs(interactions, config, seed, device)
        self._spans.append((began, time.perf_counter()))
        domain = seed[-1]
        key = digest(dataclasses.asdict(config), domain, device.type)
        self.found.append(Pretraining(key, source=domain == 0, seconds=seconds))
        return factors


def _few_epochs(
    interactions: Interactions,
    config: PretrainConfig,
    seed: tuple[int, ...],
    device: torch.device,
) -> tuple[Factors, float]:
    """Factors of the right shape, and the seconds that `config.epochs` epochs would take."""
    sharp = min(config.sharp_epochs, config.epochs) if config.steps and config.radius else 0
    started = time.perf_counter()
    ends: list[float] = []
    slices: list[tuple[float, float]] = []  # time and share of the epoch that is done

    def advance(**_: float) -> None:
        ends.append(time.perf_counter())
        slices.clear()

    def watch(done: int, total: int) -> None:
        slices.append((time.perf_counter(), done / total))
        if slices[-1][0] - started > PRETRAIN_SECONDS and len(slices) > 1:
            raise _EnoughError

    def train(epochs: int, sharp_epochs: int) -> Factors:
        few = dataclasses.replace(config, epochs=epochs, sharp_epochs=sharp_epochs)
        return pretrain(
            interactions,
            few,
            seed=seed,
            device=device,
            advance=advance,
            stage="probe",
            between_slices=watch,
        )

    try:
        factors = train(min(config.epochs, 3), min(sharp, 1))
    except _EnoughError:
        (first, before), (last, done) = slices[0], slices[-1]
        epoch = (last - first) / (done - before)
        setup = (ends[0] - epoch if ends else first) - started
        return train(0, 0), max(setup, 0.0) + config.epochs * epoch
    if len(ends) < 3:
        return factors, time.perf_counter() - started
    plain, last_epoch = ends[1] - ends[0], ends[2] - ends[1]  # the last is sharp where any is
    setup = max(ends[0] - started - plain, 0.0)
    return factors, setup + (config.epochs - sharp) * plain + sharp * last_epoch


def _few_graph_epochs(
    interactions: Interactions,
    config: PretrainConfig,
    seed: tuple[int, ...],
    device: torch.device,
) -> tuple[Factors, float]:
    """The same of a graph backbone: the most that its training takes, which may end early."""
    graph = config.graph
    few = dataclasses.replace(
        graph, epochs=min(graph.epochs, 2), sharp_epochs=min(graph.sharp_epochs, 1)
    )
    done: list[float] = []
    started = time.perf_counter()
    factors = pretrain_graph(
        interactions,
        dataclasses.replace(config, graph=few),
        seed=seed,
        device=device,
        advance=lambda **_: done.append(time.perf_counter()),
        stage="probe",
    )
    epochs = graph.epochs + (graph.sharp_epochs if config.steps else 0)
    return factors, epochs * (time.perf_counter() - started) / max(len(done), 1)


_PROC = Path("/proc/self")


def _forget_peak() -> None:
    """Start the peak anew where the system can; elsewhere it is that of all probes so far."""
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:
        return


def held_memory(*, most: bool) -> int:
    """What this process holds of memory, or the most that it has held, in bytes."""
    name = "VmHWM" if most else "VmRSS"
    try:
        lines = (_PROC / "status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak

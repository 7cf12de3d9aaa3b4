"""How long a comparison takes: probes put together as the runs share factors and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from scdr.experiments.comparison import in_order_of_work
from scdr.experiments.probe import Probe, died, held_memory, probe
from scdr.experiments.schedule import in_processes
from scdr.experiments.table import Cell, Row, Table
from scdr.experiments.tables import title_of
from scdr.experiments.work import Work
from scdr.progress import Progress

Probes = Mapping[tuple[str, str], Probe]
"""By pair and method."""


@dataclass
class MethodTime:
    """What all runs of a method take.

    Attributes:
        runs: how many there are.
        pretrain: seconds of pretraining that no run before has done.
        mapping: seconds of mapping stages.
        rest: seconds of everything else in a run.
        memory: the most that a run holds, in bytes.
        errors: why there is no estimate, by pair.
    """

    runs: int = 0
    pretrain: float = 0.0
    mapping: float = 0.0
    rest: float = 0.0
    memory: int = 0
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Of all its runs, one after the other."""
        return self.pretrain + self.mapping + self.rest


@dataclass(frozen=True)
class Estimate:
    """What a comparison takes.

    Attributes:
        methods: by name, and backbone where that is not matrix factorisation.
        seconds: from its start to its end, on so many jobs.
        memory: of all its processes at once, in bytes.
        jobs: runs at once.
    """

    methods: dict[str, MethodTime]
    seconds: float
    memory: int
    jobs: int


def probe_methods(works: Sequence[Work], *, jobs: int, progress: Progress) -> Probes:
    """A probe of each method on each pair, as many at once as the runs will be.

    The probe is at the beta in the middle, with its first seed.
    """
    chosen: dict[tuple[str, str], Work] = {}
    middle = sorted({work.beta for work in works})[len({work.beta for work in works}) // 2]
    for work in in_order_of_work(works):
        key = work.pair.name, work.arm
        if key not in chosen or (work.beta == middle != chosen[key].beta):
            chosen[key] = work
    tasks = list(chosen.values())
    found: dict[tuple[str, str], Probe] = {}
    probes = in_processes(probe, tasks, jobs=min(jobs, len(tasks)), died=died)
    with progress.runs(len(tasks), 0) as advance, closing(probes):
        for work, result in probes:
            scaled = _per_training_user(result, work.beta)
            found[work.pair.name, work.arm] = scaled
            advance(result.error is not None)
    return found


def estimate(works: Sequence[Work], probes: Probes, *, jobs: int) -> Estimate:
    """Put the runs on processes as the comparison does: each to the one that is free first.

    Args:
        works: the runs to do.
        probes: of each of their methods on each pair.
        jobs: processes.
    """
    methods: dict[str, MethodTime] = {}
    jobs = max(1, min(jobs, len(works)))
    free, holds = [0.0] * jobs, [""] * jobs
    known: set[tuple[object, ...]] = set()
    for work in in_order_of_work(works):
        pair = work.pair.name
        found = probes[pair, work.arm]
        time = methods.setdefault(work.arm, MethodTime())
        time.runs += 1
        if found.error is not None:
            time.errors[pair] = found.error
            continue
        new = []
        for part in found.pretraining:
            key = (pair, part.key, work.seed, None if part.source else work.beta)
            if key not in known:
                new.append(part.seconds)
            if not work.trials:  # a search trains anew for each trial
                known.add(key)
        fits = max(1, work.trials)
        pretrain = fits * (max(new, default=0.0) if found.side_by_side else sum(new))
        mapping = fits * found.mapping * (1 - work.beta)
        time.pretrain += pretrain
        time.mapping += mapping
        time.rest += found.rest
        time.memory = max(time.memory, found.memory)
        worker = free.index(min(free))
        if holds[worker] != pair:
            free[worker] += _load(probes, pair)
            holds[worker] = pair
        free[worker] += pretrain + mapping + found.rest
    read = sum(_load(probes, pair) for pair in dict.fromkeys(work.pair.name for work in works))
    most = max(max(found.memory, found.load_memory) for found in probes.values())
    return Estimate(
        methods=methods,
        seconds=read + max(free),
        memory=most if jobs == 1 else jobs * most + held_memory(most=False),
        jobs=jobs,
    )


def as_table(found: Estimate) -> Table:
    """The estimate, a row for each method."""
    rows = []
    for name, time in found.methods.items():
        method, _, backbone = name.partition(", ")
        title = title_of(method, backbone or None)
        seconds = (time.pretrain, time.mapping, time.seconds)
        cells = (str(time.runs), *map(duration, seconds), f"{time.memory / 1e9:.1f} GB")
        rows.append(Row(title, tuple(map(Cell, cells))))
    runs = sum(time.runs for time in found.methods.values())
    cells = (str(runs), "", "", duration(found.seconds), f"{found.memory / 1e9:.1f} GB")
    jobs = "1 job" if found.jobs == 1 else f"{found.jobs} jobs"
    rows.append(Row(f"All of it, {jobs}", tuple(map(Cell, cells)), ruled=True))
    notes = tuple(
        f"no estimate of {name} on {pair}: {error}"
        for name, time in found.methods.items()
        for pair, error in time.errors.items()
    )
    head = ("Still to do", "runs", "pretrain", "mapping", "in all", "memory")
    return Table("Estimate, from a few epochs of each method", head, tuple(rows), notes=notes)


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _per_training_user(found: Probe, beta: float) -> Probe:
    """The mapping stage in seconds over the share of overlap users that are not test users."""
    return replace(found, mapping=found.mapping / (1 - beta))


def _load(probes: Probes, pair: str) -> float:
    """The seconds that reading a pair took: the probes after it in a process found it there."""
    return max(found.load for (name, _), found in probes.items() if name == pair)

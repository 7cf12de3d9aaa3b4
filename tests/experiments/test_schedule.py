"""Many tasks in processes: order of nothing matters, and a process that dies takes one task."""

from __future__ import annotations

import operator
import os
from functools import partial

import pytest

from scdr.experiments.schedule import in_processes


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_task_has_its_outcome(jobs: int) -> None:
    tasks = [partial(pow, base, 2) for base in range(7)]
    outcomes = dict(in_processes(operator.call, tasks, jobs=jobs, died=repr))
    assert [outcomes[task] for task in tasks] == [0, 1, 4, 9, 16, 25, 36]


def test_a_process_that_dies_takes_its_own_task_alone() -> None:
    tasks = [partial(pow, 3, 2), partial(os._exit, 9), partial(pow, 4, 2), partial(pow, 5, 2)]
    outcomes = dict(in_processes(operator.call, tasks, jobs=2, died=lambda task: "died"))
    assert [outcomes[task] for task in tasks] == [9, "died", 16, 25]

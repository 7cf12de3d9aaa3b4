"""The shim finds what it is there to find: each fault of wrong_kernels.cu, and none in its twin."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import scdr
from cuda_on_cpu.build import build

pytestmark = pytest.mark.skipif(
    scdr.build_info().sanitizer, reason="the programs bring sanitizers of their own"
)

THREADS, BLOCKS = 64, 4
EVERY = range(THREADS * BLOCKS)
SEEDS = 12

# The values that each kernel leaves in its output; the rest of it stays 0.
RIGHT = {
    "missing_barrier": [sum(EVERY[i * THREADS : (i + 1) * THREADS]) for i in range(BLOCKS)],
    "missing_atomic": [THREADS * BLOCKS // 4] * 4,
    "race_of_blocks": [EVERY[-1]],
    "out_of_bounds": [1] * len(EVERY),
    "shared_out_of_bounds": [i % THREADS for i in EVERY],
    "fixed_shared_out_of_bounds": [i % THREADS for i in EVERY],
    "shared_not_written": [1] * len(EVERY),
    "exit_before_barrier": [1] * len(EVERY),
    "two_barriers": [1] * len(EVERY),
    "missing_warp_barrier": [i % THREADS ^ 31 for i in EVERY],
    "lane_outside_mask": [sum(range(i, i + 16)) for k in EVERY for i in [k % THREADS // 16 * 16]],
    "lane_that_never_comes": [16] * len(EVERY),
    "missing_grid_barrier": [EVERY[-1] - i + i // THREADS for i in EVERY],
    "exit_before_grid_barrier": [1] * len(EVERY),
    "launch_too_large": [1] * THREADS,
}
RACE = "a data race: .* with no barrier between"
VAIN = "wait for each other in vain"
# What the race detector, or scheduling alone, says of the wrong ones.
WATCHED = {
    "missing_barrier": RACE,
    "missing_atomic": RACE,
    "race_of_blocks": RACE,
    "shared_out_of_bounds": "shared memory beyond what the launch asked for",
    "exit_before_barrier": rf"{VAIN}: 40 .*__syncthreads, wrong_kernels.cu:\d+; 24 .* exited",
    "two_barriers": "__syncthreads at .* while others are at",
    "missing_warp_barrier": RACE,
    "lane_outside_mask": "reads lane .*, which is not in the mask",
    "lane_that_never_comes": VAIN,
    "missing_grid_barrier": RACE,
    "exit_before_grid_barrier": "wait at the barrier of the grid for 1 that have exited",
    "launch_too_large": "wrong number of blocks or threads",
}
SANITIZED = {
    "out_of_bounds": "heap-buffer-overflow",
    "shared_out_of_bounds": "use-after-poison",
    "fixed_shared_out_of_bounds": "index 64 out of bounds",
}
# Wrong ones whose results differ between seeds where no race detector stops them.
CHANGING = ["missing_barrier", "race_of_blocks", "missing_warp_barrier", "missing_grid_barrier"]


def run(program: str, name: str, kind: str) -> subprocess.CompletedProcess[str]:
    """The named kernel with SEEDS seeds, one line of output for each."""
    path: Path = build() / program
    # A launch that ends in an error gives its fibres up, with what they hold.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    command = [path, name, kind, str(SEEDS)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("program", ["watched", "sanitized"])
@pytest.mark.parametrize("name", RIGHT)
def test_right_kernels_give_one_result(program: str, name: str) -> None:
    finished = run(program, name, "right")
    assert finished.returncode == 0, finished.stderr
    expected = RIGHT[name] + [0] * (len(EVERY) - len(RIGHT[name]))
    lines = finished.stdout.splitlines()
    assert [[int(value) for value in line.split()] for line in lines] == [expected] * SEEDS


@pytest.mark.parametrize(
    ("program", "name", "message"),
    [("watched", *item) for item in WATCHED.items()]
    + [("sanitized", *item) for item in SANITIZED.items()],
)
def test_wrong_kernels_are_found(program: str, name: str, message: str) -> None:
    finished = run(program, name, "wrong")
    assert finished.returncode != 0
    assert re.search(message, finished.stderr), finished.stderr


@pytest.mark.parametrize("name", CHANGING)
def test_a_race_shows_as_different_results(name: str) -> None:
    finished = run("sanitized", name, "wrong")
    assert finished.returncode == 0, finished.stderr
    assert len(set(finished.stdout.splitlines())) > 1


def test_shared_memory_starts_without_lucky_zeros() -> None:
    finished = run("watched", "shared_not_written", "wrong")
    assert not any(int(value) for value in finished.stdout.split())

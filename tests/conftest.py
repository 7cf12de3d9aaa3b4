from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from scdr.data import ColdStartSplit, cold_start_split, planted

# For cuda_on_cpu and for what benches and tests share; they are no part of the package.
TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "bench")]


@pytest.fixture(scope="session")
def split() -> ColdStartSplit:
    """A planted pair small enough to train every method on."""
    made = planted(
        source_users=200,
        overlap_users=120,
        target_only_users=60,
        source_items=80,
        target_items=60,
        source_ratings_per_user=20,
        target_ratings_per_user=12,
        signal=0.8,
        seed=1,
    )
    return cold_start_split(made.domains, beta=0.4, seed=2, validation_fraction=0.2)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def fast_device(request: pytest.FixtureRequest) -> str:
    """A device for more work than a test can wait for where the CPU plays a GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no usable GPU")
    return str(request.param)

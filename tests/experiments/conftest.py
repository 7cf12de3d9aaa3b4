from __future__ import annotations

import pytest

from scdr.data import ColdStartSplit, cold_start_split, planted


@pytest.fixture(scope="session")
def split() -> ColdStartSplit:
    made = planted(
        source_users=120,
        overlap_users=80,
        target_only_users=40,
        source_items=40,
        target_items=30,
        source_ratings_per_user=15,
        target_ratings_per_user=10,
        signal=0.8,
        seed=1,
    )
    return cold_start_split(made.domains, beta=0.4, seed=2, validation_fraction=0.25)

"""How long a property is tried: seconds, or with SCDR_FUZZ=long minutes."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

LONG = os.environ.get("SCDR_FUZZ") == "long"
LONGER = int(os.environ.get("SCDR_FUZZ_FACTOR", "50"))


def fuzz(examples: int) -> settings:
    """Settings for so many examples, and 50 times as many in the long mode.

    The short mode is the same every time, so that a change is judged by what it does alone.
    """
    return settings(
        max_examples=examples * (LONGER if LONG else 1),
        derandomize=not LONG,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )

from __future__ import annotations

import sys
from pathlib import Path

# For cuda_on_cpu and for what benches and tests share; they are no part of the package.
TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "bench")]

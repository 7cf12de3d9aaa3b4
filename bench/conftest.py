"""What all benches share: where they are found, torch's threads, and the table at the end."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for shapes.py, which is no part of the package
from shapes import SHORT


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")


@pytest.fixture
def torch_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Runs torch on request.param threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


FIGURES = {
    "ns_per_rating": "a rating",
    "ns_per_row_step": "a row and step",
    "ns_per_user": "a user",
    "ns_per_edge": "an edge",
}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each implementation: its time, and how many times ours that is."""
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    groups = defaultdict(list)
    for bench in getattr(session, "benchmarks", []):
        for figure in FIGURES:
            if figure in bench.extra_info:
                groups[bench.extra_info["work"], figure].append(bench.extra_info)
    if not groups:
        return
    terminalreporter.section("times" + (" (short mode)" if SHORT else ""))
    for (work, figure), entries in groups.items():
        terminalreporter.write_line(f"{work}, {FIGURES[figure]}")
        ours = {e["threads"]: e[figure] for e in entries if e["implementation"] == "scdr"}
        for entry in sorted(entries, key=lambda e: (e["threads"], e[figure])):
            own = ours.get(entry["threads"])
            ratio = f"{entry[figure] / own:8.1f} x" if own else ""
            terminalreporter.write_line(
                f"  {entry['implementation']:<18} threads {entry['threads']} "
                f"{entry[figure]:>10.1f} ns {ratio}"
            )
        for threads, own in sorted(ours.items()):
            torches = [
                entry
                for entry in entries
                if entry["threads"] == threads and entry["implementation"].startswith("torch")
            ]
            if torches:
                best = min(torches, key=lambda e: e[figure])
                terminalreporter.write_line(
                    f"  best torch formulation, threads {threads}: {best['implementation']}, "
                    f"{best[figure] / own:.1f} x"
                )

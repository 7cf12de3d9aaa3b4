"""`make gpu-check`: everything that only a GPU can show, on the one that is here, and a table.

All op tests on `cuda`, the same bits again under `torch.use_deterministic_algorithms`,
compute-sanitizer where it is installed, and times beside plain torch on the same GPU. Exit status 0
where all went well, 1 where something failed, 2 where there is no usable GPU.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_mf_sgd_epoch import LR, D, torch_index_add
from bench_pgd_perturb import HIDDEN, PGD, folded
from rich.console import Console
from rich.table import Table
from shapes import Ratings, ratings_like
from torch import Tensor, nn

from scdr.device import why_no_cuda
from scdr.ops import mf_sgd_epoch_, pgd_perturb
from scdr.ops.streams import own_stream

ROOT = Path(__file__).resolve().parents[1]
CUDA_TESTS = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "tests/ops"]
SANITIZED_TESTS = "penalties or any_number_of_rows or few_rows or rest"
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
Row = tuple[str, str, str]  # what, how it went, details


def passed(what: str, command: list[str], **environment: str) -> Row:
    """Runs a command; its last line of output are the details."""
    finished = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}
    )
    lines = (finished.stdout + finished.stderr).strip().splitlines() or [""]
    if finished.returncode != 0:
        print(*lines[-60:], sep="\n", file=sys.stderr)
    return what, "passed" if finished.returncode == 0 else "FAILED", lines[-1]


def checks() -> list[Row]:
    rows = [passed("op tests on cuda", CUDA_TESTS)]
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return [*rows, ("compute-sanitizer", "skipped", "it is not installed")]
    tests = [*CUDA_TESTS, "-k", SANITIZED_TESTS]
    # A whole block of torch's caching allocator would hide what is read beyond a tensor.
    environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for name in TOOLS:
        command = [tool, "--tool", name, "--error-exitcode", "1", "--target-processes", "all"]
        rows.append(passed(f"compute-sanitizer {name}", [*command, *tests], **environment))
    return rows


def on_gpu(data: Ratings) -> Ratings:
    tensors = (data.users, data.items, data.ratings, data.order)
    return Ratings(data.n_users, data.n_items, *(t.cuda() for t in tensors))


def tables(data: Ratings) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    sizes = (data.n_users, data.n_items)
    user, item = (0.3 * torch.randn(size, D, generator=random) for size in sizes)
    return user.cuda(), item.cuda()


def epoch(data: Ratings, batch: int, user: Tensor, item: Tensor) -> Tensor:
    return mf_sgd_epoch_(
        user, item, data.users, data.items, data.ratings, data.order, lr=LR * 256 / batch,
        batch_size=batch,
    )  # fmt: skip


def determinism(data: Ratings) -> Row:
    """Three epochs from the same tables, with torch told to be deterministic."""
    torch.use_deterministic_algorithms(True)
    try:
        for batch in (256, 65_536):
            results = []
            for _ in range(3):
                start = tables(data)
                results.append([epoch(data, batch, *start), *start])
            for other in results[1:]:
                if not all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True)):
                    return "same bits again", "FAILED", f"mf_sgd_epoch_, batch {batch:,}"
    finally:
        torch.use_deterministic_algorithms(False)
    return "same bits again", "passed", "mf_sgd_epoch_, batches of 256 and 65,536, three times"


def seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Median time of `work`, which is run once before."""
    times = []
    for _ in range(1 + repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def benches() -> list[Row]:
    rows: list[Row] = []
    for shape in ("movies", "books"):
        data = on_gpu(ratings_like(shape))
        start = tables(data)
        part = dataclasses.replace(data, order=data.order[: 400 * 256])
        eager = seconds(partial(torch_index_add, *start, part, part.order))
        eager *= len(data.order) / len(part.order)
        for batch in (256, 4096, 65_536):
            ours = seconds(partial(epoch, data, batch, *start))
            details = f"{ours * 1e3:.1f} ms"
            if batch == 256:
                details += f", torch {eager * 1e3:.0f} ms, {eager / ours:.0f} x"
            rows.append((f"MF epoch, {shape}, batch {batch:,}", "measured", details))
    rows += [side_by_side(on_gpu(ratings_like("movies"))), *perturbation()]
    return rows


def side_by_side(data: Ratings, trainings: int = 8) -> Row:
    """Independent trainings, each in a Python thread and on a stream of its own."""
    starts = [tables(data) for _ in range(trainings)]

    def one(start: tuple[Tensor, Tensor]) -> None:
        with own_stream(torch.device("cuda")):
            epoch(data, 256, *start)

    alone = seconds(partial(one, starts[0]))
    with ThreadPoolExecutor(trainings) as pool:
        together = seconds(lambda: list(pool.map(one, starts)))
    details = f"{together * 1e3:.1f} ms, one alone {alone * 1e3:.1f} ms"
    return f"{trainings} epochs of movies side by side", "measured", details


def perturbation() -> list[Row]:
    rows: list[Row] = []
    mapping = nn.Sequential(nn.Linear(D, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, D)).cuda()
    mapping.requires_grad_(False)
    for batch in (256, 65_536):
        columns = torch.randn(batch, D), torch.randn(batch, D), 5 * torch.rand(batch)
        given = [column.cuda() for column in columns]
        ours = seconds(partial(pgd_perturb, *given, mapping, **PGD), 50)
        eager = seconds(partial(folded, *given, mapping), 50)
        details = f"{ours * 1e6:.0f} us, torch {eager * 1e6:.0f} us, {eager / ours:.0f} x"
        rows.append((f"PGD through an MLP, {batch:,} rows", "measured", details))
    return rows


def main() -> int:
    if missing := why_no_cuda():
        print(f"gpu-check: nothing checked, there is no usable GPU here: {missing}")
        return 2
    rows = [*checks(), determinism(on_gpu(ratings_like("movies"))), *benches()]
    table = Table("check", "result", "details", title=torch.cuda.get_device_name())
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    return 1 if any(result == "FAILED" for _, result, _ in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

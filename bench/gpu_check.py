"""`make gpu-check`: everything that only a GPU can show, on the one that is here, and a table.

Errors of native ops, all tests on `cuda`, the same bits again under
`torch.use_deterministic_algorithms`, compute-sanitizer where it is installed, times beside plain
torch on the same GPU, and trainings at full scale. Exit status 0 where all went well, 1 where
something failed, 2 where there is no usable GPU. Parts can be named:
`python bench/gpu_check.py tests times`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import torch
from gpu_times import all_times, epoch, ratings_on_gpu, tables
from rich.console import Console
from rich.table import Table

from scdr.device import why_no_cuda

ROOT = Path(__file__).resolve().parents[1]
CUDA_TESTS = [sys.executable, "-m", "pytest", "-q", "-m", "cuda"]
WITH_CUDA = ("tests/ops", "tests/models", "tests/methods")
SANITIZED_TESTS = "penalties or any_number_of_rows or few_rows or rest"
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
Row = tuple[str, str, str]  # what, how it went, details


def passed(what: str, command: list[str], **environment: str) -> Row:
    """Runs a command; its last line of output are the details."""
    began = time.perf_counter()
    finished = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}
    )
    lines = (finished.stdout + finished.stderr).strip().splitlines() or [""]
    if finished.returncode != 0:
        print(*lines[-60:], sep="\n", file=sys.stderr)
    result = "passed" if finished.returncode == 0 else "FAILED"
    return what, result, f"{lines[-1].strip(' =')} ({time.perf_counter() - began:.0f} s)"


def tests() -> Iterator[Row]:
    yield passed("tests on cuda", [*CUDA_TESTS, "-n", "4", *WITH_CUDA])


ERROR = """
import torch
from scdr.ops import mf_sgd_epoch_

user, item = torch.ones(4, 3, device="{device}"), torch.ones(5, 3, device="{device}")
index = torch.tensor([0, 9], dtype=torch.int32, device="{device}")
order = torch.arange(2, device="{device}")
try:
    mf_sgd_epoch_(user, item, index, index, index.float(), order, lr=0.01, batch_size=2)
except RuntimeError as error:
    print(error)
else:
    raise SystemExit("no error")
"""


def errors() -> Iterator[Row]:
    """That an error of a native op reaches Python, each in a process that it could end."""
    for device in ("cpu", "cuda"):
        program = ERROR.format(device=device)
        yield passed(f"an error on {device}", [sys.executable, "-X", "faulthandler", "-c", program])


def sanitizer() -> Iterator[Row]:
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        yield "compute-sanitizer", "skipped", "it is not installed"
        return
    chosen = [*CUDA_TESTS, "tests/ops", "-k", SANITIZED_TESTS]
    # A whole block of torch's caching allocator would hide what is read beyond a tensor.
    environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for name in TOOLS:
        command = [tool, "--tool", name, "--error-exitcode", "1", "--target-processes", "all"]
        yield passed(f"compute-sanitizer {name}", [*command, *chosen], **environment)


def determinism() -> Iterator[Row]:
    """Three epochs from the same tables, with torch told to be deterministic."""
    data = ratings_on_gpu("movies")
    torch.use_deterministic_algorithms(True)
    for batch in (256, 65_536):
        results = []
        for _ in range(3):
            start = tables(data)
            results.append([epoch(data, batch, *start), *start])
        same = all(
            torch.equal(a, b)
            for other in results[1:]
            for a, b in zip(results[0], other, strict=True)
        )
        what = f"mf_sgd_epoch_, batches of {batch:,}, three times"
        yield "same bits again", "passed" if same else "FAILED", what
    torch.use_deterministic_algorithms(False)


def times() -> Iterator[Row]:
    for what, how_long in all_times():
        yield what, "measured", how_long


def full_scale() -> Iterator[Row]:
    """Books to Movies, each method in a process of its own."""
    for method in ("scdr", "scdr_b"):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable, "-m", "scdr.train", "--synthetic", "books-movies", "--beta", "0.5",
                "--method", method, "--preset", "paper", "--device", "cuda",
                "--out", f"{folder}/run",
            ]  # fmt: skip
            what, result, _ = passed(f"Books to Movies, {method}", command)
            if result == "FAILED":
                yield what, result, ""
                continue
            report = orjson.loads(Path(folder, "run", "report.json").read_bytes())
        spent = ", ".join(f"{stage} {value:.1f} s" for stage, value in report["seconds"].items())
        yield what, result, f"RMSE {report['test']['rmse']:.4f}; {spent}"


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    part.__name__: part for part in (errors, tests, sanitizer, determinism, times, full_scale)
}


def main(names: list[str]) -> int:
    if unknown := set(names) - set(PARTS):
        print(f"gpu-check: no part is named {', '.join(unknown)}: there are {', '.join(PARTS)}")
        return 2
    if missing := why_no_cuda():
        print(f"gpu-check: nothing checked, there is no usable GPU here: {missing}")
        return 2
    table = Table("check", "result", "details", title=torch.cuda.get_device_name())
    failed = False
    for name in names or PARTS:
        for row in PARTS[name]():
            print(*row, sep=" | ", flush=True)
            table.add_row(*row)
            failed |= row[1] == "FAILED"
    Console().print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

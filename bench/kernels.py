"""What the CUDA kernels take of a multiprocessor, from ptxas's report of the last build.

`make kernels` prints registers, shared memory, spills and theoretical
occupancy of every kernel on every architecture, and what an H100 would need for an epoch at best.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shapes import SHAPES

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Kernel:
    """One kernel of an op on one architecture; sizes in bytes, registers of a thread."""

    op: str
    name: str
    architecture: str
    registers: int
    shared: int
    stack: int
    spilled: int


@dataclass(frozen=True)
class Multiprocessor:
    """What it holds at most (CUDA C++ Programming Guide, technical specifications)."""

    warps: int
    blocks: int
    shared: int
    registers: int = 65_536


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(64, 32, 164 << 10),
    "sm_90": Multiprocessor(64, 32, 228 << 10),
    "sm_100": Multiprocessor(64, 32, 228 << 10),
    "sm_120": Multiprocessor(48, 24, 100 << 10),
}
REGISTERS_TOGETHER = 256  # given to a warp at a time
SHARED_OF_SYSTEM = 1 << 10  # of each block


def reports() -> list[Path]:
    """What the last build said, a file for each CUDA source; empty where it had no CUDA."""
    return sorted((ROOT / "build").glob("native-*/CMakeFiles/_C.dir/csrc/cuda/*.cu.o.ptxas"))


ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\d+)\w*'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?")


def kernels(op: str, report: str) -> Iterator[Kernel]:
    """The kernels in the report on one op's source."""
    entry = stack = None
    for line in report.splitlines():
        entry = ENTRY.search(line) or entry
        stack = STACK.search(line) or stack
        used = USED.search(line)
        if entry and stack and used:
            yield Kernel(
                op=op,
                name=entry[1],
                architecture=entry[2],
                registers=int(used[1]),
                shared=int(used[2] or 0),
                stack=int(stack[1]),
                spilled=int(stack[2]) + int(stack[3]),
            )
            entry = stack = None


def all_kernels() -> list[Kernel]:
    """Every kernel of the last build."""
    return [
        kernel
        for path in reports()
        for kernel in kernels(path.name.partition(".")[0], path.read_text())
    ]


def readable(names: list[str]) -> list[str]:
    """`void scdr::cuda::(anonymous namespace)::f<scdr::Inner>(...)` as `f<Inner>`."""
    finished = subprocess.run(
        ["c++filt", *names], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    short = (
        re.sub(r"scdr::|cuda::|\(anonymous namespace\)::|void ", "", name) for name in finished
    )
    return [re.sub(r"\((?!Inner\)).*", "", name) for name in short]


def occupancy(kernel: Kernel, threads: int, dynamic: int = 0) -> float:
    """Share of a multiprocessor's warps that blocks of so many threads can fill."""
    most = MULTIPROCESSORS[kernel.architecture]
    warps = -(-threads // 32)
    registers = -(-kernel.registers * 32 // REGISTERS_TOGETHER) * REGISTERS_TOGETHER * warps
    blocks = min(
        most.blocks,
        most.warps // warps,
        most.registers // registers,
        most.shared // (kernel.shared + dynamic + SHARED_OF_SYSTEM),
    )
    return blocks * warps / most.warps


# Threads of a block, as each kernel is launched, and dynamic shared memory at the usual sizes:
# batches of 256 of d = 10, an MLP 10-50-10, and the best 20.
MLP = 4 * (50 * 20 + 60)
LAUNCHES: dict[str, list[tuple[int, int]]] = {
    "mapping_sgd_epoch/add_kernel": [(256, 0)],
    "mapping_sgd_epoch/batches_kernel": [(512, MLP)],
    "mapping_sgd_epoch/check_kernel": [(256, 0)],
    "mapping_sgd_epoch/chunks_kernel": [(256, 0)],
    "mapping_sgd_epoch/finite_kernel": [(256, 0)],
    "mapping_sgd_epoch/judge_kernel": [(256, 0)],
    "mapping_sgd_epoch/keys_kernel": [(256, 0)],
    "mapping_sgd_epoch/rows_kernel": [(256, MLP)],
    "mapping_sgd_epoch/update_kernel": [(256, 0)],
    "mapping_sgd_epoch/users_kernel": [(256, 0)],
    "mf_sgd_epoch/check_kernel": [(256, 0)],
    "mf_sgd_epoch/block_kernel": [(256, 256 * (2 * 12 * 4 + 2 * 2))],
    "mf_sgd_epoch/grid_kernel": [(256, 0)],
    "mf_sgd_epoch/link_kernel": [(256, 0)],
    "mf_sgd_epoch/places_kernel": [(256, 0)],
    "mf_sgd_epoch/prepare_kernel": [(256, 0)],
    "mf_sgd_epoch/square_sum_kernel": [(256, 0)],
    "mf_sgd_epoch/sum_kernel": [(256, 0)],
    "pgd_perturb_mlp/check_kernel": [(256, 0)],
    "pgd_perturb_mlp/perturb_kernel": [(128, MLP)],
    "pgd_perturb_mlp/tanh_kernel": [(128, 0)],
    "recommend_topk/check_kernel": [(256, 0)],
    "recommend_topk/exclusion_keys_kernel": [(256, 0)],
    "recommend_topk/recommend_kernel": [(256, 4 * 1024 * 8)],
    "sharp_losses/add_kernel": [(128, 0)],
    "sharp_losses/check_kernel": [(256, 0)],
    "sharp_losses/chunks_kernel": [(128, 0)],
    "sharp_losses/mapping_kernel": [(128, MLP)],
    "sharp_losses/mapping_rows_kernel": [(128, MLP)],
    "sharp_losses/mf_gradient_kernel": [(128, 0)],
    "sharp_losses/mf_kernel": [(128, 0)],
}


def launch_key(op: str, name: str) -> str:
    """Under which LAUNCHES has the kernel of this readable name."""
    return f"{op}/{name.partition('<')[0]}"


def print_kernels(found: list[Kernel]) -> None:
    """A row for each kernel and launch; for each architecture registers, spills and occupancy."""
    names = dict(zip((k.name for k in found), readable([k.name for k in found]), strict=True))
    print("| op | kernel | threads | shared |", " | ".join(MULTIPROCESSORS), "|")
    print("| --- | --- | ---: | ---: |" + " ---: |" * len(MULTIPROCESSORS))
    by_name: dict[tuple[str, str], dict[str, Kernel]] = {}
    for kernel in found:
        by_name.setdefault((kernel.op, names[kernel.name]), {})[kernel.architecture] = kernel
    for (op, name), everywhere in sorted(by_name.items()):
        for threads, dynamic in LAUNCHES[launch_key(op, name)]:
            shared = max(kernel.shared for kernel in everywhere.values()) + dynamic
            cells = [
                f"{kernel.registers}, {kernel.spilled}, {occupancy(kernel, threads, dynamic):.0%}"
                for kernel in (everywhere[architecture] for architecture in MULTIPROCESSORS)
            ]
            print(f"| `{op}` | `{name}` | {threads} | {shared} |", " | ".join(cells), "|")


BANDWIDTH = 3.35e12  # of an H100 SXM, bytes a second
CACHE = 50e6  # its second level
D = 10
STEPS = "steps, written and read, where they do not stay in the cache"
# Bytes of an epoch at d = 10: for a rating, what is read and written whatever the batch is, ...
VISIT = {
    "visit (user, item, rating)": 16,
    "both factor rows": 2 * 4 * D,
    "error, written": 4,
    "places, both sides": 2 * 8,
    STEPS: 2 * 2 * 2 * 4 * D,
}
ROW = 2 * 4 * D  # ... and for a row of a table that a batch changes, read and written


def print_floor(shape: str) -> None:
    n_users, n_items, n = SHAPES[shape]
    print(f"\n{shape}: {n:,} ratings, d = {D}; bytes a rating:")
    for what, size in VISIT.items():
        print(f"  {size:4d}  {what}")
    print("| batch | rows changed, a rating | bytes a rating | at 3.35 TB/s |")
    print("| ---: | ---: | ---: | ---: |")
    for batch in (256, 4096, 65_536, n):
        rows = sum(size * -((1 - 1 / size) ** batch - 1) for size in (n_users, n_items)) / batch
        size = sum(VISIT.values()) + rows * ROW
        if batch * 2 * 4 * D <= CACHE:
            size -= VISIT[STEPS]
        print(f"| {batch:,} | {rows:.2f} | {size:.0f} | {n * size / BANDWIDTH * 1e3:.2f} ms |")


if __name__ == "__main__":
    if not reports():
        sys.exit("no report of ptxas in build/: build with nvcc first (SCDR_CUDA=1)")
    print_kernels(all_kernels())
    for one in SHAPES:
        print_floor(one)

"""The CUDA kernels, as ptxas reports them in the last build."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernels import LAUNCHES, all_kernels, kernels, launch_key, occupancy, readable, reports

import scdr

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(
    scdr.build_info().cuda_why_not is not None, reason=f"no CUDA: {scdr.build_info().cuda_why_not}"
)
def test_no_kernel_spills_on_any_architecture() -> None:
    if not reports():
        pytest.skip("scdr was not built in this folder: no report of ptxas here")
    names = [path.name.removesuffix(".o.ptxas") for path in reports()]
    assert names == sorted(path.name for path in (ROOT / "csrc" / "cuda").glob("*.cu"))
    architectures = {f"sm_{name}" for name in scdr.build_info().cuda_architectures}
    found = all_kernels()
    assert {kernel.architecture for kernel in found} == architectures
    assert [kernel for kernel in found if kernel.spilled] == []
    names = readable([kernel.name for kernel in found])
    assert {launch_key(k.op, name) for k, name in zip(found, names, strict=True)} == LAUNCHES.keys()


REPORT = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN4scdr4cuda1fEv' for 'sm_90'
ptxas info    : Function properties for _ZN4scdr4cuda1fEv
    64 bytes stack frame, 20 bytes spill stores, 32 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 64 bytes stack, 2048 bytes smem
ptxas info    : Compiling entry function '_ZN4scdr4cuda1gEv' for 'sm_120a'
ptxas info    : Function properties for _ZN4scdr4cuda1gEv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""


def test_report_is_read() -> None:
    f, g = kernels("op", REPORT)
    assert (f.architecture, f.registers, f.shared, f.stack, f.spilled) == (
        "sm_90",
        40,
        2048,
        64,
        52,
    )
    assert (g.architecture, g.registers, g.shared, g.stack, g.spilled) == ("sm_120", 255, 0, 0, 0)
    assert readable([f.name, g.name]) == ["f", "g"]


def test_occupancy() -> None:
    """By registers 65536 / (40 * 32 * 8) = 6 blocks of 8 warps; by shared memory 228 / 31 = 7."""
    f, g = kernels("op", REPORT)
    assert occupancy(f, 256, 28 << 10) == 6 * 8 / 64
    assert occupancy(f, 256, 60 << 10) == 3 * 8 / 64
    assert occupancy(g, 32) == 8 / 48  # 65536 / (256 * 32)

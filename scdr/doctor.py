"""`python -m scdr.doctor`: what this installation can do, and why not where it can't."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from scdr.commands import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_doctor, sys.argv[1:] if arguments is None else arguments)


def _doctor(arguments: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from scdr.errors import InputError

    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: python -m scdr.doctor\n\nSay what this installation can do, and why not.")
        return
    if arguments:
        raise InputError(f"unknown argument {arguments[0]!r}", fix="scdr.doctor takes none")
    table = Table(show_header=False, box=None)
    for name, value in findings():
        table.add_row(name, value)
    Console().print(table)


def findings() -> list[tuple[str, str]]:
    """Name and finding, a pair a line."""
    import importlib.util
    import platform

    import torch

    from scdr.build import build_info
    from scdr.device import available_threads, processor, why_no_cuda

    built = build_info()
    missing = why_no_cuda()
    cuda = "usable" if missing is None else f"not usable: {missing}"
    optional = {
        "pandas": "DataFrames as input",
        "numba": "the bench's numba peers",
        "pytest_benchmark": "the bench",
        "fastapi": "scdr.serve",
        "onnxscript": "scdr.export --to onnx",
    }
    lines = [
        ("scdr", f"{built.version}, built by {built.compiler} against torch {built.torch}"),
        ("python", platform.python_version()),
        ("torch", torch.__version__),
        ("processor", f"{processor()}, {available_threads()} cores usable"),
        ("SIMD", f"{built.simd} in use; built: {', '.join(built.simd_compiled)}"),
        ("CUDA", cuda),
        ("CUDA code for", ", ".join(built.cuda_architectures) or "none"),
    ]
    for module, purpose in optional.items():
        found = importlib.util.find_spec(module) is not None
        lines.append((module, f"{'found' if found else 'not installed'} ({purpose})"))
    return lines


if __name__ == "__main__":
    sys.exit(main())

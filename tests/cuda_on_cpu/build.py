"""Builds the CUDA sources for the CPU, into a kept folder."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from filelock import FileLock

import scdr

ROOT = Path(__file__).resolve().parents[2]


@cache
def build() -> Path:
    """Compiles what has changed, with sanitizers where scdr has them; the folder of the results."""
    import cmake
    import ninja
    from torch.utils.cpp_extension import include_paths, library_paths

    sanitize = scdr.build_info().sanitizer
    folder = ROOT / "build" / ("cuda_on_cpu-sanitize" if sanitize else "cuda_on_cpu")
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_MAKE_PROGRAM": Path(ninja.BIN_DIR) / "ninja",
        "SCDR_SANITIZE": "ON" if sanitize else "OFF",
        "SCDR_TORCH_INCLUDE": ";".join(include_paths()),
        "SCDR_TORCH_LIBRARY": ";".join(library_paths()),
    }
    program = Path(cmake.CMAKE_BIN_DIR) / "cmake"
    defines = [f"-D{name}={value}" for name, value in options.items()]
    commands = (
        [program, "-S", Path(__file__).parent, "-B", folder, "-G", "Ninja", *defines],
        [program, "--build", folder],
    )
    # The compiler runs without the sanitizer that may be in this process.
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):  # one worker of pytest builds, the others wait
        for command in commands:
            finished = subprocess.run(command, capture_output=True, text=True, env=environment)
            if finished.returncode != 0:
                raise RuntimeError(f"the CUDA sources do not build for the CPU:\n{finished.stdout}")
    return folder

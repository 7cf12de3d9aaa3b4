"""Builds scdr._C, the native side, by CMake and ninja; everything else is in pyproject.toml.

Environment:
    SCDR_CUDA: 1 demands the CUDA code, 0 leaves it out; unset, it is built where nvcc is found.
    SCDR_SANITIZE: 1 builds with AddressSanitizer and UBSan, into a build folder of its own.
    CUDA_HOME: where to look for bin/nvcc when it is not on PATH.
    CUDAARCHS: the architectures to build for, as CMake has it; "native" is those of the GPUs here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CUDA_ARCHITECTURES = "80-real;90-real;100-real;120"  # the last one with PTX as well
OLDEST_NVCC = (12, 8)  # the first that knows architectures 100 and 120
OLDEST_TORCH = (2, 11)
NEWEST_ABI = (2, 13)  # the last torch whose stable ABI the sources use


def flag(name: str) -> bool | None:
    """The environment variable as a switch; None where it is unset or empty."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        sys.exit(f"scdr: {name}={value} is neither 0 nor 1")
    return None if value == "" else value == "1"


def program(name: str) -> str:
    """The path of cmake or ninja: the one from PyPI, else the one on PATH."""
    beside = Path(sys.executable).parent / name
    try:
        module = __import__(name)
        found = Path(getattr(module, "CMAKE_BIN_DIR", None) or module.BIN_DIR) / name
    except (ImportError, AttributeError):
        found = beside
    if found.exists():
        return str(found)
    if path := shutil.which(name):
        return path
    sys.exit(f"scdr: {name} is needed to build and was not found: pip install {name}")


def torch_options() -> dict[str, str]:
    """Where torch and pybind11 keep their headers and libraries."""
    try:
        import pybind11
        import torch
        from torch.utils.cpp_extension import include_paths, library_paths
    except ImportError as missing:
        sys.exit(
            f"scdr: the build needs {missing.name}: pip install torch==2.13.0 pybind11, "
            "then pip install --no-build-isolation ."
        )
    found = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if found < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        sys.exit(
            f"scdr: torch {torch.__version__} is older than {oldest}: pip install torch==2.13.0"
        )
    major, minor = min(found, NEWEST_ABI)
    return {
        "SCDR_TORCH_ABI": f"{major << 56 | minor << 48:#018x}",
        "SCDR_TORCH_INCLUDE": ";".join(include_paths()),
        "SCDR_TORCH_LIBRARY": ";".join(library_paths()),
        "SCDR_TORCH_VERSION": torch.__version__,
        "SCDR_PYBIND11_INCLUDE": pybind11.get_include(),
    }


def nvcc_version(nvcc: str) -> tuple[int, int]:
    """The release of a CUDA compiler."""
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"release (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def cuda_options() -> dict[str, str]:
    """The CUDA compiler and architectures, or why there are none."""
    wanted = flag("SCDR_CUDA")
    if wanted is False:
        return {"SCDR_CUDA": "OFF", "SCDR_CUDA_WHY_NOT": "left out by SCDR_CUDA=0"}
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=str(home))
    if nvcc is None:
        why_not = "no nvcc was found"
    elif nvcc_version(nvcc) < OLDEST_NVCC:
        why_not = f"{nvcc} is older than {'.'.join(map(str, OLDEST_NVCC))}"
    else:
        return {
            "SCDR_CUDA": "ON",
            "SCDR_CUDA_WHY_NOT": "",  # the kept folder may remember another answer
            "CMAKE_CUDA_COMPILER": nvcc,
            "CMAKE_CUDA_ARCHITECTURES": os.environ.get("CUDAARCHS") or CUDA_ARCHITECTURES,
        }
    if wanted:
        sys.exit(f"scdr: SCDR_CUDA=1, but {why_not}: put nvcc on PATH or set CUDA_HOME")
    print(f"scdr: building for the CPU only: {why_not}", file=sys.stderr)
    return {"SCDR_CUDA": "OFF", "SCDR_CUDA_WHY_NOT": why_not}


class CMakeBuild(build_ext):
    """Runs CMake in a kept folder, so that a second build does only what has changed."""

    def build_extension(self, ext: Extension) -> None:
        """Configure, compile, and put the library where setuptools wants it."""
        import sysconfig

        sanitize = bool(flag("SCDR_SANITIZE"))
        tag = f"{sys.implementation.cache_tag}-{platform.machine()}"
        folder = ROOT / "build" / f"native-{tag}{'-sanitize' if sanitize else ''}"
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_MAKE_PROGRAM": program("ninja"),
            "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
            "SCDR_VERSION": self.distribution.get_version(),
            "SCDR_PYTHON_INCLUDE": sysconfig.get_path("include"),
            "SCDR_SANITIZE": "ON" if sanitize else "OFF",
            **torch_options(),
            **cuda_options(),
        }
        cmake = program("cmake")
        defines = [f"-D{name}={value}" for name, value in options.items()]
        for command in (
            [cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *defines],
            [cmake, "--build", str(folder)],
        ):
            if subprocess.run(command, check=False).returncode != 0:
                sys.exit("scdr: the native build failed; the first error above says why")
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / "_C.so", target)


setup(ext_modules=[Extension("scdr._C", sources=[])], cmdclass={"build_ext": CMakeBuild})

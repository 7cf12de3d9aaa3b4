"""Which device a run uses, and what there is to run on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scdr.build import build_info
from scdr.errors import DeviceError


def why_no_cuda() -> str | None:
    """Why a GPU can't be used here; None where one can."""
    built = build_info()
    if not built.cuda_architectures:
        return f"scdr was built without CUDA ({built.cuda_why_not})"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no usable GPU"
    return None


def resolve_device(name: str) -> torch.device:
    """The device that "auto", "cpu" or "cuda" stands for here.

    Raises:
        DeviceError: "cuda" where no GPU is usable; it says what was found.
    """
    missing = None if name == "cpu" else why_no_cuda()
    if name == "cuda" and missing:
        raise DeviceError(
            f"no usable GPU: {missing}",
            where="--device cuda",
            fix="use --device cpu; python -m scdr.doctor says more",
        )
    return torch.device("cpu" if name == "cpu" or missing else "cuda")


def available_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """Versions and hardware, for the report of a run."""
    built = build_info()
    return {
        "scdr": version("scdr"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": processor(),
        "threads": threads,
        "simd": built.simd,
        "cuda_architectures": list(built.cuda_architectures),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }

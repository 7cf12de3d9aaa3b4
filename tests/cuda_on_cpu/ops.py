"""The ops' CUDA code, run by the CPU on tensors of the CPU."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from cuda_on_cpu.build import build
from scdr._native import _C

NAMESPACE = "scdr_cuda_on_cpu"


@cache
def library() -> tuple[ctypes.CDLL, tuple[str, ...]]:
    """The compiled CUDA sources, and the names of the ops in them."""
    path = str(build() / "_cuda_on_cpu.so")
    ctypes.CDLL(_C.__file__, mode=ctypes.RTLD_GLOBAL)  # for the hook between slices
    torch.ops.load_library(path)
    ops = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith(NAMESPACE)]
    return ctypes.CDLL(path), tuple(
        name.removeprefix(f"{NAMESPACE}::")
        for name in ops
        if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU")
    )


def seed(value: int) -> None:
    """Draws the order of threads and blocks from this seed on."""
    library()[0].cuda_on_cpu_seed(ctypes.c_uint64(value))


@contextmanager
def cuda_code_on_cpu() -> Iterator[None]:
    """Inside, scdr's ops on tensors of the CPU run their CUDA code."""
    with torch.library._scoped_library("scdr", "IMPL") as replaced:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*Overriding a previously registered kernel")
            for name in library()[1]:
                cuda_code = getattr(getattr(torch.ops, NAMESPACE), name).default
                replaced.impl(name, cuda_code, "CPU", allow_override=True)
        yield

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cuda_on_cpu.ops import cuda_code_on_cpu

from scdr.ops.threads import one_thread

DEVICES = ["cpu", "cuda_on_cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """A device for tensors; "cuda_on_cpu" is the CPU with the ops' CUDA code in place of theirs."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no usable GPU")
    if request.param == "cuda_on_cpu":
        with one_thread(), cuda_code_on_cpu():  # other threads would only wait for the one
            yield "cpu"
    else:
        yield str(request.param)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)

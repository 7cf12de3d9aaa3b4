from __future__ import annotations

import pytest
import torch

from scdr.ops.streams import own_stream


def test_nothing_on_the_cpu() -> None:
    with own_stream(torch.device("cpu")):
        assert torch.ones(3).sum() == 3


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no usable GPU")
def test_a_stream_of_its_own_that_waits_and_is_waited_for() -> None:
    before = torch.cuda.current_stream()
    values = torch.arange(10_000_000, device="cuda")
    doubled = 2 * values
    with own_stream(torch.device("cuda")):
        assert torch.cuda.current_stream() != before
        doubled += values
    assert torch.cuda.current_stream() == before
    assert torch.equal(doubled, 3 * values)

"""Every method and control, trained on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scdr.data import ColdStartSplit, source_users
from scdr.methods import CONTROLS, METHODS, FactorPredictor, FitContext

EVERY = {**METHODS, **CONTROLS}

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no usable GPU"),
]


def predictions(predictor: FactorPredictor, split: ColdStartSplit) -> np.ndarray:
    return predictor.predict(source_users(split.test_pairs, split.test), split.test.items)


def rmse(predicted: np.ndarray, split: ColdStartSplit) -> float:
    return float(np.sqrt(((predicted - split.test.ratings) ** 2).mean()))


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("name", EVERY)
def test_as_good_as_on_the_cpu_and_the_same_bits_again(
    name: str, preset: str, split: ColdStartSplit
) -> None:
    """Orders of ratings are drawn by the GPU: as if by another seed."""
    hyper = EVERY[name].presets[preset]
    found = {}
    for run, device in (("cpu", "cpu"), ("cuda", "cuda"), ("again", "cuda")):
        context = FitContext(seed=3, device=torch.device(device))
        found[run] = predictions(EVERY[name].fit(split.training, hyper, context), split)
    print("PROBE", name, preset, rmse(found["cpu"], split), rmse(found["cuda"], split), np.abs(found["cpu"] - found["cuda"]).max(), np.array_equal(found["cuda"], found["again"]))
    assert rmse(found["cuda"], split) == pytest.approx(rmse(found["cpu"], split), rel=0.1)
    np.testing.assert_array_equal(found["cuda"], found["again"])

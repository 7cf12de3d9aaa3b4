"""Every method and control, trained on a GPU."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("name", EVERY)
def test_like_the_cpu_and_the_same_bits_again(
    name: str, preset: str, split: ColdStartSplit, tmp_path: Path
) -> None:
    """Sums of float32 in another order, over some hundred steps."""
    hyper = EVERY[name].presets[preset]
    found = {}
    for run, device in (("cpu", "cpu"), ("cuda", "cuda"), ("again", "cuda")):
        context = FitContext(seed=3, device=torch.device(device))
        found[run] = predictions(EVERY[name].fit(split.training, hyper, context), split)
    print(
        f"PROBE {name} {preset} {np.abs(found['cuda'] - found['cpu']).max():.3g} same={np.array_equal(found['cuda'], found['again'])}"
    )
    np.testing.assert_allclose(found["cuda"], found["cpu"], atol=0.02)
    np.testing.assert_array_equal(found["cuda"], found["again"])

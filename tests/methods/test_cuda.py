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


def on(device: str, name: str, preset: str, split: ColdStartSplit) -> np.ndarray:
    context = FitContext(seed=3, device=torch.device(device))
    fitted = EVERY[name].fit(split.training, EVERY[name].presets[preset], context)
    return predictions(fitted, split)


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("name", EVERY)
def test_the_same_bits_again(name: str, preset: str, split: ColdStartSplit) -> None:
    found = on("cuda", name, preset, split)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, on("cuda", name, preset, split))


@pytest.mark.parametrize("name", EVERY)
def test_as_good_as_on_the_cpu(name: str, split: ColdStartSplit) -> None:
    """Not in the preset "paper", whose factors differ as much with the order of the ratings, which
    a GPU draws by itself, as with the seed."""
    cpu, cuda = (rmse(on(device, name, "default", split), split) for device in ("cpu", "cuda"))
    assert cuda == pytest.approx(cpu, rel=0.02)

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from scdr.data import ColdStartSplit
from scdr.methods import METHODS, FitContext
from scdr.serving import Predictor


@pytest.fixture(scope="session")
def model_of(
    split: ColdStartSplit, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The model file of a method, by its default preset."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def fitted(name: str) -> Path:
        method = METHODS[name]
        predictor = method.fit(split.training, method.presets["default"], FitContext())
        path = folder / f"{name}.safetensors"
        metadata = {"method": name, "rating_range": [1.0, 5.0], "clip": True}
        predictor.save(path, domains=split.domains, metadata=metadata)
        return path

    return fitted


@pytest.fixture(scope="session")
def predictor_of(model_of: Callable[[str], Path]) -> Callable[[str], Predictor]:
    @cache
    def load(name: str) -> Predictor:
        return Predictor.load(model_of(name))

    return load

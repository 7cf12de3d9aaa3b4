"""Every method that pretrains works with every backbone, and knows none of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scdr.data import ColdStartSplit, source_users
from scdr.methods import CONTROLS, METHODS, FactorPredictor, FitContext
from scdr.models.backbones import Backbone, GraphConfig

WITH_BACKBONE = [name for name, method in METHODS.items() if method.has_backbone]


def test_all_but_scdr_b_and_the_controls_have_a_backbone() -> None:
    assert set(METHODS) - set(WITH_BACKBONE) == {"scdr_b"}
    assert not any(control.has_backbone for control in CONTROLS.values())


@pytest.mark.parametrize("name", WITH_BACKBONE)
@pytest.mark.parametrize("backbone", ["ngcf", "lightgcn"])
def test_predictions_are_finite_and_survive_saving(
    name: str, backbone: Backbone, split: ColdStartSplit, tmp_path: Path
) -> None:
    hyper = METHODS[name].presets["default"]
    graph = GraphConfig(epochs=2, sharp_epochs=1)
    hyper = replace(hyper, pretrain=replace(hyper.pretrain, backbone=backbone, graph=graph))
    if hasattr(hyper, "mapping"):
        hyper = replace(hyper, mapping=replace(hyper.mapping, epochs=2))
    predictor = METHODS[name].fit(split.training, hyper, FitContext(seed=1))
    rows = source_users(split.test_pairs, split.test), split.test.items
    predicted = predictor.predict(*rows)
    assert np.isfinite(predicted).all()
    file = tmp_path / "model.safetensors"
    predictor.save(file, domains=split.domains, metadata={})
    np.testing.assert_array_equal(FactorPredictor.load(file).predictor.predict(*rows), predicted)

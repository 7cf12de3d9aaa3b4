"""A model file that something damaged: named, and never loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import dumps
from fuzz.mode import fuzz
from scdr.errors import InputError
from scdr.methods import FactorPredictor
from scdr.train import main


@pytest.fixture(scope="module", params=["scdr_b", "emcdr", "ptupcdr"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("models") / "run"
    quick = {
        "scdr_b": ["--factors.sweeps", "2"],
        "emcdr": ["--pretrain.epochs", "1", "--mapping.epochs", "1"],
        "ptupcdr": ["--pretrain.epochs", "1", "--mapping.epochs", "1"],
    }
    method = str(request.param)
    synthetic = ["--synthetic", "movies-music", "--scale", "0.002", "--device", "cpu"]
    assert main(["--method", method, *synthetic, *quick[method], "--out", str(out)]) == 0
    return (out / "model.safetensors").read_bytes()


@fuzz(60)
@given(st.data())
def test_a_damaged_model(tmp_path: Path, model: bytes, data: st.DataObject) -> None:
    damaged = data.draw(dumps.damaged(model))
    path = tmp_path / "model.safetensors"
    path.write_bytes(damaged)
    try:
        saved = FactorPredictor.load(path)
    except InputError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        assert damaged != model
    else:
        assert damaged == model
        users, items = np.arange(2), np.arange(2)
        assert np.isfinite(saved.predictor.predict(users, items)).all()


@fuzz(60)
@given(st.binary(max_size=400))
def test_random_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        FactorPredictor.load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)

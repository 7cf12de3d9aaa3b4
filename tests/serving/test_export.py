"""Exports against the library: ONNX in onnxruntime, and NumPy alone in a process without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from serving.people import cold_users, history_of, target_users

from scdr.data import ColdStartSplit
from scdr.export import main
from scdr.methods import FactorPredictor
from scdr.models.personal import PersonalMapping
from scdr.serving import Predictor


def session(path: Path) -> Any:
    return pytest.importorskip("onnxruntime").InferenceSession(path)


@pytest.mark.parametrize("name", ["scdr", "ptupcdr"])
def test_onnx_is_the_model(
    name: str,
    model_of: Callable[[str], Path],
    predictor_of: Callable[[str], Predictor],
    split: ColdStartSplit,
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnxscript")
    out = tmp_path / "onnx"
    assert main([str(model_of(name)), "--to", "onnx", "--out", str(out)]) == 0
    model = FactorPredictor.load(model_of(name)).predictor
    users = torch.from_numpy(split.test_pairs[:, 0]).long()
    inputs = {"vectors": model.source_vectors[users].numpy()}
    if isinstance(model.mapping, PersonalMapping):
        inputs["history"] = model.mapping.history[users].numpy().astype(np.int64)
    (mapped,) = session(out / "mapping.onnx").run(["mapped"], inputs)
    np.testing.assert_allclose(mapped, model.user_vectors(users).numpy(), rtol=1e-4, atol=1e-5)
    items = np.array([*range(60), 60])  # the last stands for an item that is not known
    scores, ratings = session(out / "scorer.onnx").run(None, {"mapped": mapped, "items": items})
    table = model.items
    linear = table.offsets[items].numpy() + mapped @ table.vectors[items].numpy().T
    np.testing.assert_allclose(scores, linear, rtol=1e-4, atol=1e-5)
    ids = [*predictor_of(name).item_ids, "unheard of"]
    expected = [one.ratings for one in predictor_of(name).predict(cold_users(split), ids)]
    np.testing.assert_allclose(ratings, expected, atol=2e-3)  # the curve has 4,096 steps


WITHOUT_TORCH = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "scdr", "polars", "scipy"):
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Refuse())
runpy.run_path("example.py", run_name="__main__")
"""


@pytest.mark.parametrize("name", ["scdr", "scdr_b"])
def test_numpy_alone_recommends_the_same(
    name: str,
    model_of: Callable[[str], Path],
    predictor_of: Callable[[str], Predictor],
    split: ColdStartSplit,
    tmp_path: Path,
) -> None:
    out, predictor = tmp_path / "numpy", predictor_of(name)
    assert main([str(model_of(name)), "--to", "numpy", "--out", str(out)]) == 0
    history = history_of(split, 3)
    pairs = [f"{item}={rating}" for item, rating in history.items()]
    asked: list[tuple[list[str], Any]] = [
        ([cold_users(split)[0]], cold_users(split)[0]),
        ([target_users(split)[0]], target_users(split)[0]),
        (["nobody"], None),
        (pairs, history if name == "scdr" else None),
    ]
    for arguments, user in asked:
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, *arguments],
            cwd=out,
            capture_output=True,
            text=True,
            check=True,
        )
        found = [line.split(" ") for line in done.stdout.splitlines()]
        best = predictor.recommend(user, 20)
        assert [item for item, _ in found] == best.items
        np.testing.assert_allclose([float(r) for _, r in found], best.ratings, atol=3e-3)
    with np.load(out / "model.npz", allow_pickle=False) as arrays:
        assert all(arrays[key].dtype != object for key in arrays)


def test_an_existing_folder_is_refused(
    model_of: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model_of("scdr")), "--to", "numpy", "--out", str(tmp_path)]) == 2
    assert "the folder exists" in capfd.readouterr().err
    assert main([str(model_of("scdr")), "--to", "numpy", "--out", str(tmp_path / "a" / "b")]) == 2
    assert "can't be written" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())

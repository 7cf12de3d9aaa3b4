"""The model file: whatever happens to it, it is what was saved or it is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scdr.data import ColdStartSplit
from scdr.errors import InputError
from scdr.methods import METHODS, FactorPredictor, FitContext


@pytest.fixture(scope="module")
def model(split: ColdStartSplit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    method = METHODS["scdr_b"]
    predictor = method.fit(split.training, method.presets["default"], FitContext())
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    predictor.save(path, domains=split.domains, metadata={"method": "scdr_b"})
    return path


def test_any_flipped_bit_is_found(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    random = np.random.default_rng(0)
    everywhere = random.integers(len(data), size=60)
    spoilt = tmp_path / "spoilt.safetensors"
    for place in (*range(8), *random.integers(8, header, size=60), *everywhere, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        spoilt.write_bytes(changed)
        with pytest.raises(InputError, match=r"spoilt\.safetensors"):
            FactorPredictor.load(spoilt)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:100],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[: len(data) // 2],
        lambda data: b"\x80\x04." + data,
        lambda data: bytes(len(data)),
        lambda data: data.replace(b"sha256=", b"sha255="),
    ],
)
def test_anything_else_is_refused(spoil: object, model: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.safetensors"
    spoilt.write_bytes(spoil(model.read_bytes()))  # type: ignore[operator]
    with pytest.raises(InputError, match=r"spoilt\.safetensors"):
        FactorPredictor.load(spoilt)


def test_a_folder_or_nothing_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match=path.name):
            FactorPredictor.load(path)


def test_saving_twice_gives_the_same_bytes(
    model: Path, split: ColdStartSplit, tmp_path: Path
) -> None:
    saved = FactorPredictor.load(model)
    again = tmp_path / "again.safetensors"
    method = METHODS["scdr_b"]
    fitted = method.fit(split.training, method.presets["default"], FitContext())
    fitted.save(again, domains=split.domains, metadata=saved.metadata)
    assert again.read_bytes() == model.read_bytes()

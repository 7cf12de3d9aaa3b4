"""Files that scdr wrote itself and something damaged: named and never taken for what they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fuzz import dumps
from fuzz.mode import fuzz
from scdr.data import from_columns, prepare_domain, read_domain
from scdr.errors import InputError
from scdr.experiments.cache import FactorCache
from scdr.models import Factors, PretrainConfig

RATINGS = from_columns(["a", "b", "b"], ["x", "x", "y"], [1, 2, 3])
FACTORS = Factors(torch.arange(8.0).view(2, 4), torch.ones(2, 4), torch.ones(2), torch.ones(2), 3.5)


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("domain")
    (folder / "dump.csv").write_text("".join(f"u{n % 7},i{n % 5},{n % 5 + 1}\n" for n in range(60)))
    prepare_domain(folder / "dump.csv", folder / "domain.parquet", core=0)
    return (folder / "domain.parquet").read_bytes()


@fuzz(60)
@given(st.data())
def test_a_damaged_prepared_domain(tmp_path: Path, domain: bytes, data: st.DataObject) -> None:
    damaged = data.draw(dumps.damaged(domain))
    path = tmp_path / "domain.parquet"
    path.write_bytes(damaged)
    try:
        read_domain(path, core=0, format=data.draw(st.sampled_from(["auto", "prepared"])))
    except InputError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        assert damaged != domain
    else:
        assert damaged == domain


def train(factors: list[Factors]) -> Factors:
    factors.append(FACTORS)
    return FACTORS


@fuzz(60)
@given(st.data())
def test_a_damaged_cache_entry(tmp_path: Path, data: st.DataObject) -> None:
    cache = FactorCache(tmp_path, limit=10**6)
    trained: list[Factors] = []

    def get() -> Factors:
        config = PretrainConfig()
        return cache.get_or_train(
            RATINGS, config, seed=(0,), device=torch.device("cpu"), train=lambda: train(trained)
        )

    get()
    (entry,) = tmp_path.glob("*.safetensors")
    sound = entry.read_bytes()
    damaged = data.draw(dumps.damaged(sound))
    entry.write_bytes(damaged)
    trained.clear()
    cache.notes.clear()
    found = get()
    assert bool(trained) == (damaged != sound)
    assert [str(entry) in note for note in cache.notes] == [True] * len(trained)
    for name in ("user", "item", "user_bias", "item_bias"):
        assert torch.equal(getattr(found, name), getattr(FACTORS, name))
    assert found.offset == FACTORS.offset
    assert entry.read_bytes() == sound  # written again

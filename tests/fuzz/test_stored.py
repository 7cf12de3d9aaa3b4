"""Files that scdr wrote itself and something damaged: named and never taken for what they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fuzz import dumps
from fuzz.mode import fuzz
from scdr.checkpoints import Checkpoints
from scdr.data import from_columns, prepare_domain, read_domain
from scdr.errors import InputError
from scdr.experiments.cache import FactorCache
from scdr.experiments.config import PairConfig
from scdr.experiments.store import ResultStore
from scdr.experiments.work import Result, Work
from scdr.methods import METHODS
from scdr.models import Factors, PretrainConfig

STATE = {
    "parts": {"weights": torch.arange(6.0), "order": np.random.default_rng(1).bit_generator.state},
    "shown": [{"loss": 0.5}, {"loss": 0.25}],
    "epoch": 2,
}
WORK = Work(
    pair=PairConfig(name="p", synthetic="planted"), data="d", beta=0.5, seed=1, preset="paper",
    method="emcdr", backbone="mf", hyper=METHODS["emcdr"].presets["paper"], trials=0, core=5,
    strict=False, validation_fraction=0.0, clip=True, config_hash="abc", device="cpu", threads=1,
    cache=Path("cache"), cache_limit=0,
)  # fmt: skip
RESULT = Result(
    metrics={"mae": 0.7, "rmse": 0.9, "test_ratings": 12},
    users=pl.DataFrame({"user": ["a", "b"], "n_ratings": [5, 7], "mae": [0.5, 1.0]}),
    seconds=1.5,
)
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


@fuzz(60)
@given(st.data())
def test_a_damaged_checkpoint(tmp_path: Path, data: st.DataObject) -> None:
    notes: list[str] = []
    checkpoints = Checkpoints(
        tmp_path, every=0, fingerprint=lambda: {"data": "d"}, note=notes.append
    )
    checkpoints.save("stage", STATE)
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    damaged = data.draw(dumps.damaged(sound))
    path.write_bytes(damaged)
    found = checkpoints.load("stage")
    if damaged == sound:
        assert found is not None and not notes
        assert torch.equal(found["parts"].pop("weights"), STATE["parts"]["weights"])
        assert found == STATE | {"parts": {"order": STATE["parts"]["order"]}}
    else:
        assert found is None
        (note,) = notes
        assert "damaged checkpoint" in note and str(path) in note and "\n" not in note


@fuzz(60)
@given(st.data())
def test_a_damaged_result_of_a_comparison(tmp_path: Path, data: st.DataObject) -> None:
    ResultStore(tmp_path).keep(WORK, RESULT)
    described = tmp_path / "abc.json"
    path = data.draw(st.sampled_from([described, tmp_path / "abc.parquet"]))
    sound = path.read_bytes()
    damaged = data.draw(dumps.damaged(sound))
    path.write_bytes(damaged)
    store = ResultStore(tmp_path)
    found = store.find(WORK)
    if found is None:
        assert damaged != sound
        assert list(store.damaged) == [described]
        assert store.damaged[described] and "\n" not in store.damaged[described]
    else:
        # blanks and line ends between the values of JSON are no damage
        assert damaged == sound or orjson.loads(damaged) == orjson.loads(sound)
        assert not store.damaged
        assert replace(found, users=None) == replace(RESULT, users=None)
        assert found.users is not None and found.users.equals(RESULT.users)

"""The cache of pretrained factors: shared, never wrong, never larger than it may be."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scdr.data import ColdStartSplit, Interactions
from scdr.experiments.cache import FactorCache, read_factors, write_factors
from scdr.methods import METHODS, FitContext
from scdr.models import Factors, PretrainConfig
from scdr.models.backbones import GraphConfig

CPU = torch.device("cpu")


def drawn(seed: int = 0, *, biases: bool = True) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    user, item = (torch.randn(n, 4, generator=generator) for n in (7, 5))
    if not biases:
        return Factors(user, item)
    return Factors(user, item, user[:, 0].clone(), item[:, 0].clone(), offset=3.5)


def equal(first: Factors, second: Factors) -> bool:
    pairs = [
        (getattr(first, name), getattr(second, name))
        for name in ("user", "item", "user_bias", "item_bias")
    ]
    same = all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)
    return same and first.offset == second.offset


class Cached:
    """Asks a cache and counts what it trains."""

    def __init__(self, folder: Path, data: Interactions, *, limit: int = 10**9) -> None:
        self.cache = FactorCache(folder, limit=limit)
        self.data = data
        self.trained = 0

    def get(self, **changes: Any) -> Factors:
        seed = changes.pop("seed", (0, 1))
        data = changes.pop("data", self.data)

        def train() -> Factors:
            self.trained += 1
            return drawn(seed[0])

        return self.cache.get_or_train(
            data, replace(PretrainConfig(), **changes), seed=seed, device=CPU, train=train
        )

    def entry(self) -> Path:
        (path,) = self.cache.folder.glob("*.safetensors")
        return path


@pytest.fixture
def cached(tmp_path: Path, split: ColdStartSplit) -> Cached:
    return Cached(tmp_path / "cache", split.training.target)


@pytest.mark.parametrize("biases", [True, False])
def test_factors_come_back_to_the_bit(biases: bool, tmp_path: Path) -> None:
    factors = drawn(biases=biases)
    write_factors(tmp_path / "factors", factors)
    assert equal(read_factors(tmp_path / "factors"), factors)


def test_what_was_trained_is_not_trained_again(cached: Cached, split: ColdStartSplit) -> None:
    first = cached.get()
    again = Cached(cached.cache.folder, split.training.target)
    assert equal(again.get(), first)
    assert (cached.trained, again.trained) == (1, 0)


def test_every_input_counts(cached: Cached, split: ColdStartSplit) -> None:
    data = split.training.target
    ratings = data.ratings.copy()
    ratings[3] += 1
    changes: list[dict[str, Any]] = [
        {},
        {"epochs": 3},
        {"radius": 0.2},
        {"backbone": "lightgcn"},
        {"graph": GraphConfig(layers=2)},
        {"seed": (1, 1)},
        {"seed": (0, 0)},
        {"data": replace(data, ratings=ratings)},
        {"data": replace(data, items=data.items[::-1].copy())},
        {"data": replace(data, user_ids=data.user_ids[:-1])},
    ]
    for number, change in enumerate(changes):
        cached.get(**change)
        assert cached.trained == number + 1, change


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "one bit": flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "other bytes": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "another entry's header": lambda path: write_without_checksum(path),
}


def write_without_checksum(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"user": torch.zeros(7, 4), "item": torch.zeros(5, 4)}, path)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_entry_is_named_dropped_and_trained_again(kind: str, cached: Cached) -> None:
    first = cached.get()
    path = cached.entry()
    DAMAGE[kind](path)
    assert equal(cached.get(), first)
    assert cached.trained == 2
    (note,) = cached.cache.notes
    assert str(path) in note and "damaged" in note
    assert equal(read_factors(path), first)


def test_random_damage_is_always_found(cached: Cached) -> None:
    first = cached.get()
    path, rng = cached.entry(), random.Random(0)
    sound = path.read_bytes()
    for case in range(30):
        data = bytearray(sound)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data if case % 2 else sound[: rng.randrange(len(sound))])
        assert equal(cached.get(), first)
        assert len(cached.cache.notes) == case + 1 and str(path) in cached.cache.notes[-1]
    assert cached.trained == 31


def test_the_least_recently_used_go_first(cached: Cached) -> None:
    cached.get(seed=(0, 0))
    size = cached.entry().stat().st_size
    cached.cache.limit = 3 * size
    for seed in (1, 2):
        cached.get(seed=(seed, 0))
    for age, path in enumerate(p for p, _ in cached.cache.entries()):
        os.utime(path, ns=(age * 10**9, age * 10**9))
    cached.get(seed=(0, 0))  # used again: no longer the oldest
    cached.get(seed=(3, 0))
    assert cached.trained == 4
    assert len(cached.cache.entries()) == 3
    for seed in (0, 2, 3):
        cached.get(seed=(seed, 0))
    assert cached.trained == 4
    cached.get(seed=(1, 0))
    assert cached.trained == 5


def test_what_a_killed_process_left_is_written_over_and_cleared(cached: Cached) -> None:
    cached.get()
    path = cached.entry()
    partial = path.with_name(f".{path.name}.partial")
    path.rename(partial)
    cached.get()
    assert cached.trained == 2
    assert [p for p, _ in cached.cache.entries()] == [path]
    partial.write_bytes(b"half")
    assert cached.cache.clear()[0] == 2
    assert cached.cache.entries() == []


def test_the_second_who_asks_waits_for_the_first(tmp_path: Path, split: ColdStartSplit) -> None:
    trained = []
    begun = threading.Event()

    def ask(name: str) -> Factors:
        def train() -> Factors:
            trained.append(name)
            begun.set()
            time.sleep(0.2)
            return drawn()

        return FactorCache(tmp_path, limit=10**9).get_or_train(
            split.training.target, PretrainConfig(), seed=(0, 0), device=CPU, train=train
        )

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, "first")
        begun.wait()
        second = pool.submit(ask, "second")
        assert equal(first.result(), second.result())
    assert trained == ["first"]


def test_without_a_usable_folder_it_trains_and_says_so(
    tmp_path: Path, split: ColdStartSplit
) -> None:
    (tmp_path / "file").write_text("in the way")
    cached = Cached(tmp_path / "file" / "cache", split.training.target)
    assert equal(cached.get(), drawn())
    assert "can't be used" in cached.cache.notes[0]


def test_an_error_in_training_keeps_nothing_and_holds_no_lock(cached: Cached) -> None:
    def fail() -> Factors:
        raise RuntimeError("no")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            cached.cache.get_or_train(
                cached.data, PretrainConfig(), seed=(0, 1), device=CPU, train=fail
            )
    assert equal(cached.get(), drawn())


def test_methods_share_pretraining_that_is_equal(tmp_path: Path, split: ColdStartSplit) -> None:
    """Plain factors of both domains serve four methods, sharp ones the fifth."""
    cache = FactorCache(tmp_path, limit=10**9)
    entries = []
    for name in ("tgt", "emcdr", "task_mapping", "scdr_minus", "scdr"):
        method = METHODS[name]
        hyper = method.presets["default"]
        short = replace(hyper, pretrain=replace(hyper.pretrain, epochs=2))
        alone = method.fit(split.training, short, FitContext())
        shared = method.fit(split.training, short, FitContext(pretrained=cache))
        assert torch.equal(alone.source_vectors, shared.source_vectors)
        assert torch.equal(alone.items.vectors, shared.items.vectors)
        entries.append(len(cache.entries()))
    assert entries == [1, 2, 2, 2, 4]

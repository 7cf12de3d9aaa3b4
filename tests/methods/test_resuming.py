"""Every method, killed after every few checkpoints, ends with the bits of an uninterrupted fit."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scdr.checkpoints import Checkpoints
from scdr.data import ColdStartSplit
from scdr.methods import METHODS, FactorPredictor, FitContext

SHORT = {"epochs": 6, "sharp_epochs": 3, "sweeps": 4}


class KilledError(Exception):
    pass


class Killing(Checkpoints):
    """Ends the run by an exception once it has kept so many states."""

    def __init__(self, folder: Path, *, kills_after: int) -> None:
        super().__init__(folder, every=0, fingerprint=lambda: {"data": "these"})
        self.left = kills_after

    def save(self, stage: str, state: Any) -> None:
        super().save(stage, state)
        self.left -= 1
        if self.left == 0:
            raise KilledError


def short(config: Any, **changes: Any) -> Any:
    """With few epochs in every section, and other changes where there are such fields."""
    names = {field.name for field in fields(config)}
    sections = {name: short(getattr(config, name), **changes)
                for name in names if is_dataclass(getattr(config, name))}  # fmt: skip
    return replace(config, **sections, **{k: v for k, v in changes.items() if k in names})


CASES: list[tuple[str, str, dict[str, Any]]] = [
    *((name, preset, {}) for name in METHODS for preset in ("default", "paper")),
    ("scdr", "default", {"optimizer": "adam"}),
    ("scdr", "default", {"patience": 1, "epochs": 12}),
    ("emcdr", "default", {"patience": 1, "epochs": 12, "kind": "mlp", "learning_rate": 0.05}),
    ("sscdr", "default", {"optimizer": "sgd"}),
    ("scdr_b", "default", {"dimension": 0}),
    ("scdr", "default", {"backbone": "lightgcn"}),
    ("emcdr", "default", {"backbone": "ngcf", "epochs": 12, "patience": 2}),
]


@pytest.mark.parametrize(("name", "preset", "changes"), CASES)
def test_a_fit_killed_again_and_again_ends_with_the_same_bits(
    name: str,
    preset: str,
    changes: dict[str, Any],
    split: ColdStartSplit,
    tmp_path: Path,
    fast_device: str,
) -> None:
    method, device = METHODS[name], torch.device(fast_device)
    config = short(method.presets[preset], **(SHORT | changes))
    whole = method.fit(split.training, config, FitContext(seed=3, device=device))
    kills = 0
    while True:
        checkpoints = Killing(tmp_path, kills_after=3 + kills % 2)
        try:
            context = FitContext(seed=3, device=device, checkpoints=checkpoints, threads=2)
            found = method.fit(split.training, config, context)
            break
        except KilledError:
            kills += 1
    assert kills >= 1
    assert len(list(tmp_path.iterdir())) <= 3  # one file for each stage
    assert_same(found, whole)


def assert_same(found: FactorPredictor, whole: FactorPredictor) -> None:
    assert torch.equal(found.source_vectors, whole.source_vectors)
    for field in fields(whole.items):
        assert torch.equal(getattr(found.items, field.name), getattr(whole.items, field.name))
    if whole.mapping is not None:
        assert found.mapping is not None
        ours, theirs = found.mapping.state_dict(), whole.mapping.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert str(found.distribution) == str(whole.distribution)

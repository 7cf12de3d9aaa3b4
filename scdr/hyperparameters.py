"""How hyper-parameters are declared: one definition gives the command line, TOML and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""`__pydantic_config__` of a class of hyper-parameters: unknown keys, other types and non-finite
numbers are errors. `scdr.config.from_dict` checks; a class on its own takes what it is given."""

Count = Annotated[int, Field(ge=0, lt=2**31)]
PositiveCount = Annotated[int, Field(ge=1, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class Real:
    """Any number from `low` to `high`, by default evenly on a logarithmic scale."""

    low: float
    high: float
    log: bool = True


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `low` to `high`, by default evenly on a logarithmic scale."""

    low: int
    high: int
    log: bool = True


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some values."""

    values: tuple[float | int | bool | str, ...]


SearchSpace = Mapping[str, Real | Whole | OneOf]
"""What a hyper-parameter search may vary, by name."""


def within(section: str, space: SearchSpace) -> dict[str, Real | Whole | OneOf]:
    """The search space of a section of a method's hyper-parameters, its names dotted."""
    return {f"{section}.{name}": values for name, values in space.items()}

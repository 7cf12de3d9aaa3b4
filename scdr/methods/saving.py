"""A mapping or a fold-in as named tensors and a description in JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from scdr.models.fold_in import FoldIn, RidgeFoldIn
from scdr.models.personal import PersonalMapping
from scdr.models.profile_fold_in import ProfileFoldIn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
_FOLD_INS: dict[str, type[FoldIn]] = {"ridge": RidgeFoldIn, "profile": ProfileFoldIn}


def describe(mapping: nn.Module | None) -> tuple[Any, dict[str, Tensor]]:
    """What `restore` needs to make the mapping again.

    Args:
        mapping: None, a `PersonalMapping`, or linear, tanh and relu layers, alone or in a sequence.

    Returns:
        A description that JSON holds, and tensors by name.

    Raises:
        TypeError: a mapping of another kind.
    """
    if isinstance(mapping, PersonalMapping):
        sizes = [mapping.source_width, mapping.target_width, mapping.hidden]
        description = {"personal": sizes, "liked_above": mapping.liked_above}
        return description, dict(mapping.state_dict())
    layers: list[list[Any]] = []
    tensors: dict[str, Tensor] = {}
    for index, layer in enumerate(_layers(mapping)):
        if isinstance(layer, nn.Linear):
            sizes = [layer.in_features, layer.out_features, layer.bias is not None]
            layers.append(["linear", *sizes])
            tensors |= {f"{index}.{name}": value for name, value in layer.state_dict().items()}
            continue
        names = [name for name, kind in _ACTIVATIONS.items() if type(layer) is kind]
        if not names:
            raise TypeError(
                f"a mapping with a {type(layer).__name__} can't be saved: it may hold linear, "
                f"{' and '.join(_ACTIVATIONS)} layers"
            )
        layers.append(names)
    return layers, tensors


def restore(description: Any, tensors: Mapping[str, Tensor]) -> nn.Module | None:
    """The mapping that `describe` described, its weights asking for no gradient."""
    mapping: nn.Module
    if isinstance(description, dict):
        source_width, target_width, hidden = description["personal"]
        mapping = PersonalMapping(
            tensors["item_vectors"],
            tensors["history"],
            source_width=source_width,
            target_width=target_width,
            hidden=hidden,
            liked_above=description["liked_above"],
        )
    else:
        layers = [
            nn.Linear(shape[0], shape[1], bias=shape[2]) if shape else _ACTIVATIONS[kind]()
            for kind, *shape in description
        ]
        if not layers:
            return None
        mapping = nn.Sequential(*layers)
    mapping.load_state_dict(tensors)
    mapping.requires_grad_(False)
    if isinstance(mapping, nn.Sequential) and len(mapping) == 1:
        return mapping[0]
    return mapping


def describe_fold_in(fold_in: FoldIn | None) -> tuple[Any, dict[str, NDArray[Any]]]:
    """What `restore_fold_in` needs to make the fold-in again.

    Returns:
        A description that JSON holds, and arrays by name.

    Raises:
        TypeError: a fold-in of a kind that is not known here.
    """
    if fold_in is None:
        return None, {}
    names = [name for name, kind in _FOLD_INS.items() if type(fold_in) is kind]
    if not names:
        raise TypeError(f"a fold-in of type {type(fold_in).__name__} can't be saved")
    values, arrays = fold_in.state()
    return {"kind": names[0], "values": values}, arrays


def restore_fold_in(description: Any, tensors: Mapping[str, Tensor]) -> FoldIn | None:
    """The fold-in that `describe_fold_in` described."""
    if description is None:
        return None
    arrays: dict[str, NDArray[Any]] = {n: np.asarray(t.numpy()) for n, t in tensors.items()}
    return _FOLD_INS[description["kind"]].from_state(description["values"], arrays)


def _layers(mapping: nn.Module | None) -> list[nn.Module]:
    if mapping is None:
        return []
    return list(mapping) if isinstance(mapping, nn.Sequential) else [mapping]

"""A mapping as named tensors and a description in JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from scdr.models.personal import PersonalMapping

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


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
        return {"personal": sizes}, dict(mapping.state_dict())
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


def _layers(mapping: nn.Module | None) -> list[nn.Module]:
    if mapping is None:
        return []
    return list(mapping) if isinstance(mapping, nn.Sequential) else [mapping]

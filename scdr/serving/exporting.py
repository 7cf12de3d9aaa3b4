"""A model without scdr: as ONNX, or as NumPy arrays."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scdr.methods.base import SavedModel
from scdr.models.fold_in import RidgeFoldIn
from scdr.models.personal import PersonalMapping

EXAMPLE = Path(__file__).with_name("numpy_example.py")
_STEPS = 4_096
"""Of the curve from a score to a rating."""


def export_onnx(saved: SavedModel, folder: Path) -> None:
    """Write `mapping.onnx`, `scorer.onnx` and `ids.json`.

    - mapping: `vectors [users, d_source] -> mapped [users, d_target]`; where each user has a bridge
      of their own also from `history [users, H]`, int64, liked source items padded with -1. It is
      left out where the mapping is the identity.
    - scorer: `mapped [users, d_target], items [n] -> scores, ratings [users, n]`; items are int64,
      I for one that is not known. Scores rank; ratings are what is predicted.

    Args:
        saved: a loaded model.
        folder: an existing folder.
    """
    model = saved.predictor
    users, width = torch.export.Dim("users"), model.source_vectors.shape[1]
    vectors = torch.zeros(2, width)
    if isinstance(model.mapping, PersonalMapping):
        history = torch.zeros(2, model.mapping.history.shape[1], dtype=torch.int64)
        personal = _Personal(model.mapping)
        _export(
            personal,
            {"vectors": vectors, "history": history},
            ({0: users}, {0: users}),
            ["mapped"],
            folder / "mapping.onnx",
        )
    elif model.mapping is not None:
        _export(
            model.mapping, {"vectors": vectors}, ({0: users},), ["mapped"], folder / "mapping.onnx"
        )
    _export(
        _Scorer(saved),
        {
            "mapped": torch.zeros(2, model.items.vectors.shape[1]),
            "items": torch.arange(3) % len(model.items.offsets),
        },
        ({0: users}, {0: torch.export.Dim("n")}),
        ["scores", "ratings"],
        folder / "scorer.onnx",
    )
    ids = {
        "user_ids": saved.user_ids.tolist(),
        "item_ids": saved.item_ids.tolist(),
        "target_user_ids": saved.target_user_ids.tolist(),
    }
    (folder / "ids.json").write_text(json.dumps(ids), encoding="utf-8")


def export_numpy(saved: SavedModel, folder: Path) -> None:
    """Write `model.npz`, arrays without pickle, and `example.py`, which recommends by NumPy alone.

    Arrays: `user_ids` (JSON as bytes) and `user_vectors` `[U, d]` of all users that are known, the
    target's by their own vectors and the source's mapped; `item_ids`, `item_vectors` `[I, d]`,
    `item_offsets` `[I]` and `item_priors` `[I]`; `curve` `[2, n]`, scores in ascending order and
    the ratings predicted there; and `source_ids`, of source items, which is empty unless a history
    can be folded in by ridge regression and mapped by `layers` linear layers with a tanh between.
    Then there are `source_items` `[I_s, d_source]`, `source_known` `[I_s]`, `penalties`
    `[d_source]`, and `weight_N` and `bias_N` of each layer.

    Args:
        saved: a loaded model.
        folder: an existing folder.
    """
    model = saved.predictor
    with torch.no_grad():
        mapped = model.user_vectors(torch.arange(len(model.source_vectors))).numpy()
    ids, vectors = saved.user_ids, mapped
    if model.target_users is not None:
        others = ~np.isin(ids.astype(str), saved.target_user_ids.astype(str))
        ids = np.concatenate([saved.target_user_ids, ids[others]])
        vectors = np.concatenate([model.target_users.vectors.numpy(), mapped[others]])
    arrays: dict[str, NDArray[Any]] = {
        "user_ids": _json(ids.tolist()),
        "user_vectors": vectors,
        "item_ids": _json(saved.item_ids.tolist()),
        "item_vectors": model.items.vectors[:-1].numpy(),
        "item_offsets": model.items.offsets[:-1].numpy(),
        "item_priors": model.items.priors[:-1].numpy(),
    }
    scores = _scores_of_curve(saved)
    arrays["curve"] = np.stack([scores, _ratings_at(saved, scores)])
    arrays |= _fold_in(saved)
    np.savez(folder / "model.npz", allow_pickle=False, **arrays)
    (folder / "example.py").write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")


def _fold_in(saved: SavedModel) -> dict[str, NDArray[Any]]:
    """What folds a history in, where a few lines of NumPy can."""
    fold_in, layers = saved.predictor.fold_in, _tanh_layers(saved.predictor.mapping)
    if not isinstance(fold_in, RidgeFoldIn) or fold_in.per_rating or layers is None:
        return {"source_ids": _json([])}
    arrays = {
        "source_ids": _json(saved.source_item_ids.tolist()),
        "source_items": fold_in.items,
        "source_known": fold_in.known,
        "penalties": fold_in.penalties,
        "layers": np.array(len(layers)),
    }
    for n, layer in enumerate(layers):
        bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias
        arrays |= {f"weight_{n}": layer.weight.numpy(), f"bias_{n}": bias.numpy()}
    return arrays


def _tanh_layers(mapping: nn.Module | None) -> list[nn.Linear] | None:
    """The linear layers of a mapping with a tanh between each two; None for another kind."""
    layers = [] if mapping is None else [mapping]
    layers = list(mapping) if isinstance(mapping, nn.Sequential) else layers
    linear = [layer for layer in layers[::2] if isinstance(layer, nn.Linear)]
    between = [layer for layer in layers[1::2] if isinstance(layer, nn.Tanh)]
    return linear if len(linear) + len(between) == len(layers) else None


class _Personal(nn.Module):
    def __init__(self, mapping: PersonalMapping) -> None:
        super().__init__()
        self.mapping = mapping

    def forward(self, vectors: Tensor, history: Tensor) -> Tensor:
        return self.mapping.through(vectors, history)


class _Scorer(nn.Module):
    vectors: Tensor
    offsets: Tensor
    curve: Tensor

    def __init__(self, saved: SavedModel) -> None:
        super().__init__()
        items, scores = saved.predictor.items, _scores_of_curve(saved)
        self.low, self.high = float(scores[0]), float(scores[-1])
        self.register_buffer("vectors", items.vectors)
        self.register_buffer("offsets", items.offsets)
        self.register_buffer("curve", torch.from_numpy(_ratings_at(saved, scores)).float())

    def forward(self, mapped: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.offsets[items] + mapped @ self.vectors[items].T
        place = (scores.clamp(self.low, self.high) - self.low) * (_STEPS / (self.high - self.low))
        before = place.floor().clamp(max=_STEPS - 1)
        left, right = self.curve[before.long()], self.curve[before.long() + 1]
        return scores, left + (place - before) * (right - left)


def _scores_of_curve(saved: SavedModel) -> NDArray[np.float64]:
    """Scores from the lowest to the highest rating, or, where nothing is clipped, far beyond."""
    low, high = saved.metadata["rating_range"]
    if saved.predictor.distribution is None and not saved.metadata["clip"]:
        spread = 100 * max(high - low, 1.0)
        low, high = low - spread, high + spread
    return np.linspace(low, max(high, low + 1e-6), _STEPS + 1)


def _ratings_at(saved: SavedModel, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rating predicted at each score."""
    model = saved.predictor
    ratings = scores
    if model.distribution is not None:
        ratings = model.distribution.point(scores, model.optimise)
    if saved.metadata["clip"]:
        ratings = np.clip(ratings, *saved.metadata["rating_range"])
    return ratings


def _export(
    module: nn.Module,
    inputs: dict[str, Tensor],
    dynamic: tuple[dict[int, Any], ...],
    outputs: list[str],
    path: Path,
) -> None:
    # The exporter warns of its own future, and of packages that it could also export.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=dynamic,
                dynamo=True,
                verbose=False,
            )
        finally:
            logger.setLevel(level)
    assert program is not None
    program.save(path)


def _json(values: Any) -> NDArray[np.uint8]:
    """JSON as bytes: NumPy's own strings drop zeros at their end."""
    return np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)

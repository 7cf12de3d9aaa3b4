"""The best items of each user, over all items."""

from __future__ import annotations

import torch
from torch import Tensor

from scdr import _native  # noqa: F401  (registers the op)

OP = "recommend_topk: "


@torch.library.register_fake("scdr::recommend_topk")
def _fake(
    user_vectors: Tensor, item_vectors: Tensor, k: int, **_options: object
) -> tuple[Tensor, Tensor]:
    scores = user_vectors.new_empty(user_vectors.shape[0], k)
    return scores, torch.empty_like(scores, dtype=torch.int64)


def recommend_topk(
    user_vectors: Tensor,
    item_vectors: Tensor,
    k: int,
    *,
    offsets: Tensor | None = None,
    exclude_offsets: Tensor | None = None,
    exclude_items: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The k items of the highest score for each user, best first, over all items.

    The score of item i for user b is `offsets[i] + <user_vectors[b], item_vectors[i]>`. Items of
    one score are ranked by their index, the lower one first.

    The result is exact. A score is summed in float32 from left to right, `offsets[i]` (or 0) first,
    then one product after the other, each rounded before it is added; -0 counts, and is returned,
    as 0. So scores and items have the same bits at any number of threads, for any other users in
    the call, on every SIMD level and on CUDA.

    Items that a user has already rated are left out by `exclude_offsets` and `exclude_items`, in
    the form of the rows of a CSR matrix: user b gets none of
    `exclude_items[exclude_offsets[b] : exclude_offsets[b + 1]]`. They may be in any order, and
    occur several times.

    Args:
        user_vectors: float32 `[B, d]`, d from 1 to 256.
        item_vectors: float32 `[I, d]`, on the same device.
        k: items for each user, 0 or more.
        offsets: float32 `[I]`, part of each item's score, or None for none.
        exclude_offsets: int64 `[B + 1]`, from 0 to n, never falling; None for none.
        exclude_items: int32 or int64 `[n]`, from 0 to I - 1; given with `exclude_offsets`.

    Tensors that are not contiguous are copied. The result carries no gradient.

    Returns:
        scores: float32 `[B, k]`.
        items: int64 `[B, k]`. Where fewer than k items are left for a user, the rest of its row is
            item -1 with score -inf.

    Raises:
        ValueError: an argument has a wrong shape, dtype, device or range, holds a value that is not
            finite, or is so large that a score may exceed float32; it is named.
    """
    tensors = {
        "user_vectors": user_vectors,
        "item_vectors": item_vectors,
        "offsets": offsets,
        "exclude_offsets": exclude_offsets,
        "exclude_items": exclude_items,
    }
    for name, tensor in tensors.items():
        if tensor is None and name not in ("user_vectors", "item_vectors"):
            continue
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} is a {type(tensor).__name__}; it must be a tensor")
        if tensor.device != user_vectors.device:
            raise ValueError(
                f"{name} is on {tensor.device}, user_vectors on {user_vectors.device}; they must "
                "agree"
            )
        tensors[name] = tensor.detach().contiguous()
    try:
        scores, items = torch.ops.scdr.recommend_topk.default(
            tensors["user_vectors"],
            tensors["item_vectors"],
            k,
            offsets=tensors["offsets"],
            exclude_offsets=tensors["exclude_offsets"],
            exclude_items=tensors["exclude_items"],
        )
    except RuntimeError as error:
        # The stable ABI turns every exception of native code into a RuntimeError.
        message = str(error)
        if message.startswith(OP):
            raise ValueError(message.removeprefix(OP)) from error
        raise
    return scores, items

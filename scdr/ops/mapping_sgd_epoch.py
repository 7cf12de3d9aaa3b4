"""One epoch of the mapping stage: minibatch SGD or Adam on L_SCDR, in place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scdr import _native
from scdr.ops.adam import AdamState, native_arguments
from scdr.ops.mf_sgd_epoch import SpoiltTablesError
from scdr.ops.perturbation import tanh_layers
from scdr.ops.slices import SliceProgress, in_slices

OP = "mapping_sgd_epoch_: "


@torch.library.register_fake("scdr::mapping_sgd_epoch_")
def _fake(user: Tensor, *_arguments: object, **_options: object) -> Tensor:
    return user.new_empty((), dtype=torch.float64)


@torch.no_grad()
def mapping_sgd_epoch_(
    user: Tensor,
    item: Tensor,
    mapping: nn.Sequential,
    users: Tensor,
    items: Tensor,
    ratings: Tensor,
    order: Tensor,
    *,
    lr: float,
    batch_size: int,
    steps: int,
    step_size: float | None = None,
    radius: float,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    train_user: bool = True,
    adam: AdamState | None = None,
    progress: SliceProgress | None = None,
) -> Tensor:
    r"""Visit the ratings in `order`, in batches, and take one step for each batch (Eq. 8, 9).

    With source user vector u, target item vector v, rating r and `f(x) = W2 tanh(W1 x + b1) + b2`,
    the loss of a batch of B rows is

        L = 1/B sum_rows (<f(u + delta), v> - r)^2

    where delta is what `steps` steps of projected gradient ascent find (Eq. 12, 13), as by
    `pgd_perturb`. Gradients are taken at the parameters of the start of the batch with delta a
    constant (Eq. 15); those of a user that occurs in several rows add up. With `clip_norm` they
    are scaled by min(1, clip_norm / (norm + 1e-6)), norm being the l2 norm of all of them together,
    as by `torch.nn.utils.clip_grad_norm_`; then the gradient of `weight_decay` ||W||^2 is added
    for W of W1, b1, W2 and b2. Then W1, b1, W2, b2 and, with `train_user`, the batch's rows of
    `user` take a step of SGD or of Adam. The last batch may be short.

    The result is the same to the bit at any number of threads.

    Args:
        user: float32 [U, d_source], source user vectors, written to with `train_user`.
        item: float32 [I, d_target], target item vectors.
        mapping: `Sequential(Linear(d_source, H), Tanh(), Linear(H, d_target))`, float32, with or
            without biases, written to; all three widths from 1 to 257.
        users: int32 [n], the user of each rating.
        items: int32 [n], the item of each rating.
        ratings: float32 [n], less everything that is added to the inner product.
        order: int32 or int64 [m], m <= n: the row visited at each position.
        lr: learning rate, of the mean over a batch.
        batch_size: rows in a batch.
        steps: steps of PGD, the paper's k; 0 is task mapping.
        step_size: length of a step in each coordinate, the paper's alpha; None is
            1 / sqrt(d_source).
        radius: of the l2 ball, the paper's rho.
        weight_decay: weight of the squares of the mapping's parameters in the loss of each batch.
        clip_norm: longest gradient, positive; None leaves it as it is.
        train_user: whether user vectors are trained.
        adam: moments "w1", "b1", "w2", "b2" (as `torch.optim.Adam`) and, with `train_user`, "user"
            (rows of the batch only, as `torch.optim.SparseAdam`); written to. None is plain SGD.
        progress: called about ten times a second with the positions of `order` done and in all.
            What it raises ends the epoch after a whole batch, as Ctrl-C does on the main thread.

    All tensors are contiguous, finite and on one device. Parameters that require gradients are
    updated, but nothing is recorded: the op is the optimiser. Scratch memory: 12 bytes a rating and
    some 33 times the size of the mapping.

    Returns:
        float64 scalar on the device of `user`: the sum of the squared errors over the visited
        ratings, each at the parameters of the start of its batch, without penalties; 0 where
        `order` is empty.

    Raises:
        ValueError: an argument is wrong; it is named (W1 to b2 as w1 to b2), and nothing has been
            written.
        SpoiltTablesError: an error, a gradient or an updated parameter is not finite. Batch,
            position in `order` and row (the first whose error is not finite, or the one with the
            largest error) are named; earlier batches are applied, and the tables are spoilt.
    """
    layers = tanh_layers(mapping)
    if layers is None:
        raise ValueError("mapping must be Sequential(Linear, Tanh, Linear)")
    first, second = layers
    weights = {"w1": first.weight, "b1": first.bias, "w2": second.weight, "b2": second.bias}
    tables = {**weights, "user": user if train_user else None}
    moments, batches = native_arguments(
        adam, [name for name, table in tables.items() if table is not None]
    )
    try:
        return in_slices(
            lambda: torch.ops.scdr.mapping_sgd_epoch_(
                user,
                item,
                *weights.values(),
                users,
                items,
                ratings,
                order,
                lr=lr,
                batch_size=batch_size,
                steps=steps,
                step_size=step_size,
                radius=radius,
                weight_decay=weight_decay,
                clip_norm=clip_norm,
                train_user=train_user,
                **moments,
            ),
            progress,
        )
    except RuntimeError as error:
        if "tables are spoilt" in str(error):
            raise SpoiltTablesError(str(error)) from error
        _native.raise_named(error, OP)
        raise
    finally:
        if adam is not None and batches is not None:
            adam.step = int(batches)

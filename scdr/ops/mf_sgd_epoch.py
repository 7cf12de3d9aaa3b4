"""One epoch of minibatch SGD or Adam on L_MF or L_SMF, in place."""

from __future__ import annotations

import torch
from torch import Tensor

from scdr import _native  # noqa: F401  (registers the op)
from scdr.ops.adam import AdamState, native_arguments
from scdr.ops.perturbation import Inner
from scdr.ops.slices import SliceProgress, in_slices


class SpoiltTablesError(RuntimeError):
    """An epoch left the finite numbers; the factors it was training are of no use any more."""


@torch.library.register_fake("scdr::mf_sgd_epoch_")
def _fake(user: Tensor, *_arguments: object, **_options: object) -> Tensor:
    return user.new_empty((), dtype=torch.float64)


@torch.no_grad()
def mf_sgd_epoch_(
    user: Tensor,
    item: Tensor,
    users: Tensor,
    items: Tensor,
    ratings: Tensor,
    order: Tensor,
    *,
    lr: float,
    batch_size: int,
    user_bias: Tensor | None = None,
    item_bias: Tensor | None = None,
    offset: float = 0.0,
    steps: int = 0,
    step_size: float | None = None,
    radius: float = 0.0,
    inner: Inner = "pgd",
    user_penalty: float = 0.0,
    item_penalty: float = 0.0,
    user_bias_penalty: float = 0.0,
    item_bias_penalty: float = 0.0,
    user_inverse_count: Tensor | None = None,
    item_inverse_count: Tensor | None = None,
    clip_norm: float | None = None,
    adam: AdamState | None = None,
    progress: SliceProgress | None = None,
) -> Tensor:
    r"""Visit the ratings in `order`, in batches, and take one step of SGD or Adam for each batch.

    The loss of a batch is a sum over its rows, with user vector u, item vector v, rating r:

        e = offset + b_u + b_i + <u + delta, v> - r
        L = e^2 + user_penalty ||u||^2 + item_penalty ||v||^2
                + user_bias_penalty b_u^2 + item_bias_penalty b_i^2

    With `steps` or `radius` 0, delta is 0 (L_MF). Otherwise (L_SMF, Eq. 10) delta is, for
    `inner="pgd"`, what `steps` steps of projected gradient ascent on e^2 (Eq. 12, 13) give; in
    closed form, with e before the perturbation and sgn(0) = 0,

        delta = min(steps * step_size, radius / sqrt(nnz(v))) sgn(e) sgn(v)

    and for `inner="exact"` the supremum over the ball, delta = radius sgn(e) v / max(||v||, 1e-12).
    Gradients are taken at the parameters of the start of the batch with delta a constant (Eq. 15);
    those of a user or item that occurs in several rows add up. This is what `torch.optim.SGD` does
    on sparse embeddings. The last batch may be short.

    With `clip_norm` the gradient of a batch, all tables together, is scaled down to that l2 norm
    where it is longer, as by `torch.nn.utils.clip_grad_norm_`. With `adam` it goes into the moments
    of the rows that occur in the batch, and those rows move by them, as by
    `torch.optim.SparseAdam`; other rows and their moments rest. For both, what several ratings ask
    of one row is summed up first, in order of visit.

    The result is the same to the bit at any number of threads. All of torch's threads work on a
    batch of 65,536 rows or more. Smaller ones run on the calling thread, without the GIL; in an
    epoch of 65,536 visits or more a second thread brings in their ratings. Scratch memory: 16 bytes
    a rating, 8 (d + 16) bytes a row of a batch at most, and, where an epoch visits the rows of the
    tables three times or more on average, an aligned copy of both tables; with `clip_norm` or
    `adam` 8 bytes a row of the tables. On CUDA, about 100 bytes a visit and 8 (d + 5)
    bytes a row of a batch; there the result is the same to the bit from run to run, whatever
    `torch.use_deterministic_algorithms` says.

    Args:
        user: float32 [U, d], user factors, written to; d from 1 to 256.
        item: float32 [I, d], item factors, written to.
        users: int32 [n], the user of each rating.
        items: int32 [n], the item of each rating.
        ratings: float32 [n], finite.
        order: int32 or int64 [m], m <= n: the row visited at each position.
        lr: learning rate, of the sum over a batch.
        batch_size: rows in a batch.
        user_bias: float32 [U], written to, or None for none.
        item_bias: float32 [I], written to, or None for none.
        offset: constant part of every prediction, not trained.
        steps: steps of PGD, the paper's k. With `inner="exact"` only 0 or not matters.
        step_size: length of a step in each coordinate, the paper's alpha; None is 1 / sqrt(d).
        radius: of the l2 ball, the paper's rho.
        inner: how delta is found.
        user_penalty: weight of ||u||^2 in the loss of each rating.
        item_penalty: weight of ||v||^2 in the loss of each rating.
        user_bias_penalty: weight of b_u^2 in the loss of each rating.
        item_bias_penalty: weight of b_i^2 in the loss of each rating.
        user_inverse_count: float32 [U]; multiplies both user penalties of a rating by the value of
            its user. With 1 / (ratings of the user) a user's penalty is constant over an epoch.
        item_inverse_count: float32 [I]; the same for items.
        clip_norm: largest l2 norm of the gradient of a batch, positive; None does not clip.
        adam: Adam's settings and moments of the tables "user" and "item", and of "user_bias" and
            "item_bias" where they are given; written to, `step` included. None is SGD.
        progress: called about ten times a second with the positions of `order` done and in all.
            What it raises ends the epoch after a whole batch, as Ctrl-C does on the main thread.

    All tensors are contiguous and on one device; the tables do not overlap. Tables that require
    gradients are updated, but nothing is recorded: the op is the optimiser.

    Returns:
        float64 scalar on the device of `user`: the sum of e^2 over the visited ratings, each at the
        parameters of the start of its batch, without penalties; 0 where `order` is empty.

    Raises:
        RuntimeError: an argument is wrong; it is named, and nothing has been written.
        ValueError: `adam` has moments of other tables than are given.
        SpoiltTablesError: an error e, or what a step makes of a row, is not finite. Batch, position
            in `order` and row are named. Tables and moments are spoilt; `adam.step` counts the
            batches before, and a batch with such an error is not applied.
    """
    tables = {"user": user, "item": item, "user_bias": user_bias, "item_bias": item_bias}
    moments, count = native_arguments(
        adam, [name for name, table in tables.items() if table is not None]
    )
    try:
        return in_slices(
            lambda: torch.ops.scdr.mf_sgd_epoch_(
                user,
                item,
                users,
                items,
                ratings,
                order,
                lr=lr,
                batch_size=batch_size,
                user_bias=user_bias,
                item_bias=item_bias,
                offset=offset,
                steps=steps,
                step_size=step_size,
                radius=radius,
                inner=inner,
                user_penalty=user_penalty,
                item_penalty=item_penalty,
                user_bias_penalty=user_bias_penalty,
                item_bias_penalty=item_bias_penalty,
                user_inverse_count=user_inverse_count,
                item_inverse_count=item_inverse_count,
                clip_norm=clip_norm,
                **moments,
            ),
            progress,
        )
    except RuntimeError as error:
        # The stable ABI turns every exception of native code into a RuntimeError.
        if "tables are spoilt" in str(error):
            raise SpoiltTablesError(str(error)) from error
        raise
    finally:
        if adam is not None and count is not None:
            adam.step = int(count)

"""Each op again in plain torch: same names, same order of arguments, any floating dtype.

These are the definitions that the kernels are tested against; they are written to be read, and
perturb by the loop of PGD where the kernels use its closed form.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scdr.ops.adam import AdamState
from scdr.ops.perturbation import Inner, MappingFunction, resolve_step_size, row_norms


def project(delta: Tensor, radius: float) -> Tensor:
    """The nearest point of the l2 ball around 0, for each row of delta [B, d] (Eq. 13)."""
    return delta * (radius / row_norms(delta)).clamp_max(1.0)


def pgd_perturb(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    mapping: MappingFunction | None = None,
    *,
    steps: int,
    step_size: float | None = None,
    radius: float,
    inner: Inner = "pgd",
) -> Tensor:
    """`scdr.ops.pgd_perturb`: step after step, with gradients by autograd (Eq. 12, 13)."""
    alpha = resolve_step_size(step_size, user.shape[1])
    delta = torch.zeros_like(user)  # [B, d_source]
    if steps == 0 or radius == 0 or user.numel() == 0:
        return delta

    def error_at(moved: Tensor) -> Tensor:  # [B, d_source] -> [B]
        error: Tensor = ((moved if mapping is None else mapping(moved)) * item).sum(1) - rating
        return error

    def gradient_at(moved: Tensor, *, squared: bool) -> Tensor:  # [B, d_source]
        with torch.enable_grad():
            at = moved.detach().requires_grad_()
            error = error_at(at)
            (gradient,) = torch.autograd.grad((error**2 if squared else error).sum(), at)
        return gradient

    with torch.no_grad():
        if inner == "exact":  # linear in the user vector: one direction is the steepest everywhere
            steepest = gradient_at(user, squared=False)
            return radius * error_at(user).sgn()[:, None] * steepest / row_norms(steepest)
        for _ in range(steps):
            ascent = gradient_at(user + delta, squared=True).sgn()
            delta = project(delta + alpha * ascent, radius)
    return delta


def sharp_mf_loss(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    *,
    steps: int,
    step_size: float | None = None,
    radius: float,
    inner: Inner = "pgd",
) -> Tensor:
    """`scdr.ops.sharp_mf_loss`, delta* a constant (Eq. 10, 15)."""
    return sharp_mapping_loss(
        user,
        item,
        rating,
        nn.Identity(),
        steps=steps,
        step_size=step_size,
        radius=radius,
        inner=inner,
    )


def sharp_mapping_loss(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    mapping: MappingFunction,
    *,
    steps: int,
    step_size: float | None = None,
    radius: float,
    inner: Inner = "pgd",
) -> Tensor:
    """`scdr.ops.sharp_mapping_loss`, delta* a constant (Eq. 9, 15)."""
    rows = user.detach(), item.detach(), rating.detach()
    delta = pgd_perturb(
        *rows, mapping, steps=steps, step_size=step_size, radius=radius, inner=inner
    )
    loss: Tensor = ((mapping(user + delta) * item).sum(1) - rating) ** 2
    return loss


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
) -> Tensor:
    """`scdr.ops.mf_sgd_epoch_`, batch after batch, with gradients by autograd (Eq. 10, 15)."""
    tables = {
        "user": user,
        "item": item,
        "user_bias": user.new_zeros(len(user)) if user_bias is None else user_bias,
        "item_bias": item.new_zeros(len(item)) if item_bias is None else item_bias,
    }
    total = torch.zeros((), dtype=torch.float64, device=user.device)
    for rows in order.long().split(batch_size):
        if len(rows) == 0:
            continue
        i, j = users[rows].long(), items[rows].long()  # [B]
        with torch.enable_grad():
            leaves = [table.detach().requires_grad_() for table in tables.values()]
            u, v = leaves[0][i], leaves[1][j]  # [B, d]
            b_u, b_i = leaves[2][i], leaves[3][j]  # [B]
            rest = offset + b_u + b_i - ratings[rows]
            delta = pgd_perturb(
                u.detach(),
                v.detach(),
                -rest.detach(),
                steps=steps,
                step_size=step_size,
                radius=radius,
                inner=inner,
            )
            error = ((u + delta) * v).sum(1) + rest  # [B]
            weight_u = 1.0 if user_inverse_count is None else user_inverse_count[i]
            weight_i = 1.0 if item_inverse_count is None else item_inverse_count[j]
            penalty = weight_u * (user_penalty * u.square().sum(1) + user_bias_penalty * b_u**2)
            penalty = penalty + weight_i * (
                item_penalty * v.square().sum(1) + item_bias_penalty * b_i**2
            )
            gradients = torch.autograd.grad((error.square() + penalty).sum(), leaves)
        total += error.detach().double().square().sum()
        gradient = dict(zip(tables, gradients, strict=True))
        if user_bias is None:
            del gradient["user_bias"]
        if item_bias is None:
            del gradient["item_bias"]
        scale = torch.ones((), dtype=user.dtype, device=user.device)
        if clip_norm is not None:
            norm = sum(g.square().sum() for g in gradient.values()) ** 0.5
            scale = (clip_norm / (norm + 1e-6)).clamp_max(1.0)
        if adam is not None:
            adam.step += 1
        with torch.no_grad():
            for name, g in gradient.items():
                if adam is None:
                    tables[name].sub_(lr * scale * g)
                else:
                    visited = (i if name.startswith("user") else j).unique()
                    _adam_update(adam, name, tables[name], visited, scale * g[visited], lr)
    return total


def _adam_update(
    adam: AdamState,
    name: str,
    table: Tensor,
    rows: Tensor,
    gradient: Tensor,
    lr: float,
    eps: float | None = None,
) -> None:
    """The moments of these rows take in their gradient, and the rows move by them."""
    first, second = adam.first[name], adam.second[name]
    first[rows] += (1 - adam.beta1) * (gradient - first[rows])
    second[rows] += (1 - adam.beta2) * (gradient.square() - second[rows])
    size = lr * (1 - adam.beta2**adam.step) ** 0.5 / (1 - adam.beta1**adam.step)
    table[rows] -= size * first[rows] / (second[rows].sqrt() + (adam.eps if eps is None else eps))


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
) -> Tensor:
    """`scdr.ops.mapping_sgd_epoch_`, batch after batch, by autograd (Eq. 8, 9, 15)."""
    weights = dict(zip(("w1", "b1", "w2", "b2"), _parameters(mapping), strict=True))
    tables = {name: weight for name, weight in weights.items() if weight is not None}
    if train_user:
        tables["user"] = user
    total = torch.zeros((), dtype=torch.float64, device=user.device)
    for rows in order.long().split(batch_size):
        if len(rows) == 0:
            continue
        with torch.enable_grad():
            leaves = {name: table.detach().requires_grad_() for name, table in tables.items()}
            u, v = leaves.get("user", user)[users[rows].long()], item[items[rows].long()]

            def mapped(x: Tensor, leaves: dict[str, Tensor] = leaves) -> Tensor:
                hidden = torch.tanh(nn.functional.linear(x, leaves["w1"], leaves.get("b1")))
                return nn.functional.linear(hidden, leaves["w2"], leaves.get("b2"))

            residual = ratings[rows]  # [B]
            delta = pgd_perturb(
                u.detach(), v, residual, mapped, steps=steps, step_size=step_size, radius=radius
            )
            error = (mapped(u + delta) * v).sum(1) - residual  # [B]
            gradients = torch.autograd.grad(error.square().mean(), list(leaves.values()))
        total += error.detach().double().square().sum()
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        scale = 1.0 if clip_norm is None else min(1.0, clip_norm / (float(norm) + 1e-6))
        if adam is not None:
            adam.step += 1
            # torch.optim.Adam, but not SparseAdam, has eps beside the corrected root.
            eps = adam.eps * (1 - adam.beta2**adam.step) ** 0.5
        with torch.no_grad():
            for (name, table), gradient in zip(tables.items(), gradients, strict=True):
                of_user = name == "user"
                at = (
                    users[rows].long().unique()
                    if of_user
                    else torch.arange(len(table), device=table.device)
                )
                taken = scale * gradient[at] + (0.0 if of_user else 2 * weight_decay) * table[at]
                if adam is None:
                    table[at] -= lr * taken
                else:
                    _adam_update(adam, name, table, at, taken, lr, None if of_user else eps)
    return total


def _parameters(mapping: nn.Sequential) -> tuple[Tensor | None, ...]:
    first, _, second = mapping
    return first.weight, first.bias, second.weight, second.bias  # type: ignore[return-value]


def recommend_topk(
    user_vectors: Tensor,
    item_vectors: Tensor,
    k: int,
    *,
    offsets: Tensor | None = None,
    exclude_offsets: Tensor | None = None,
    exclude_items: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`scdr.ops.recommend_topk`: all scores, summed in the same order, sorted stably."""
    n_users, n_items = len(user_vectors), len(item_vectors)
    scores = user_vectors.new_zeros(n_users, n_items)
    if offsets is not None:
        scores += offsets
    for factor in range(user_vectors.shape[1]):
        scores = scores + user_vectors[:, factor, None] * item_vectors[None, :, factor]
    left = torch.full((n_users,), n_items, device=scores.device)
    if exclude_offsets is not None and exclude_items is not None:
        for user in range(n_users):
            excluded = exclude_items[exclude_offsets[user] : exclude_offsets[user + 1]].long()
            scores[user, excluded] = -torch.inf
            left[user] -= len(excluded.unique())
    best, items = scores.sort(dim=1, descending=True, stable=True)
    missing = max(k - n_items, 0)
    best = torch.nn.functional.pad(best[:, :k], (0, missing), value=-torch.inf)
    items = torch.nn.functional.pad(items[:, :k], (0, missing), value=-1)
    return best, items.where(torch.arange(k, device=left.device) < left[:, None], -1)


def fgsm_perturb(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    mapping: MappingFunction | None = None,
    *,
    eps: float,
) -> Tensor:
    """`scdr.ops.fgsm_perturb`, with the gradient by autograd (Eq. 19)."""
    with torch.enable_grad():
        at = user.detach().requires_grad_()
        error = ((at if mapping is None else mapping(at)) * item).sum(1) - rating
        (gradient,) = torch.autograd.grad((error**2).sum(), at)
    return eps * gradient.sgn()


def factor_posteriors_(
    moments: Tensor,
    start: Tensor,
    others: Tensor,
    ratings: Tensor,
    other_moments: Tensor,
    precision: Tensor,
    group: Tensor,
    prior_mean: Tensor | None = None,
    *,
    noise: float,
) -> Tensor:
    """`scdr.ops.factor_posteriors_`: user by user."""
    width = precision.shape[1] + 1  # d + 2
    upper = torch.triu_indices(width, width)
    phi = [0, *range(2, width)]
    total = torch.zeros((), dtype=torch.float64)
    for row, own in enumerate(group):
        rated = slice(int(start[row]), int(start[row + 1]))
        second = moments.new_zeros(width, width)
        second[upper[0], upper[1]] = other_moments[others[rated].long()].sum(0)
        second = torch.triu(second) + torch.triu(second, 1).T  # sum E[a a']
        first = ratings[rated] @ other_moments[others[rated].long(), :width]  # sum r E[a]
        mean = moments.new_zeros(width - 1) if prior_mean is None else prior_mean[row]
        outer, linear = second[phi][:, phi], first[phi] - second[1, phi]
        covariance = torch.linalg.inv(outer / noise + precision[own])
        y = covariance @ (linear / noise + precision[own] @ mean)
        both = covariance + torch.outer(y, y)  # E[y y']
        total += ratings[rated].square().sum() - 2 * first[1] + second[1, 1]
        total += (outer * both).sum() - 2 * linear @ y
        with_one = torch.block_diag(moments.new_ones(1, 1), both)
        with_one[0, 1:] = y
        moments[row] = with_one[upper[0], upper[1]]
    return total

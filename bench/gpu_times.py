"""Times of the ops beside plain torch on the same GPU, which gpu_check.py puts into its table.

torch has three forms: eager; `graph`, the same captured as a CUDA graph, so that nothing waits for
Python; and, of `recommend_topk`, blocks of users of the fastest size. What the peers compute is
checked where it is benched on the CPU (bench_*.py), with the same functions.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import bench_mapping_sgd_epoch as mapping_epoch
import bench_mf_sgd_epoch as mf_epoch
import bench_pgd_perturb as pgd
import bench_recommend_topk as topk
import torch
from shapes import Ratings, ratings_like
from torch import Tensor, nn

from scdr.ops import mf_sgd_epoch_, pgd_perturb, reference, sharp_mapping_loss
from scdr.ops.streams import own_stream

TORCH_BATCHES = 400
"""Batches of 256 that torch is timed on; an epoch has many more of the same."""

Time = tuple[str, str]  # what, how long
Work = Callable[[], Any]


def seconds(work: Work, *, calls: int = 1, repeats: int = 5) -> float:
    """Median time of a call, of `repeats` runs of `calls`, after one more of each."""
    times = []
    for _ in range(1 + repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(calls):
            work()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - began) / calls)
    return statistics.median(times[1:])


def graph_of(work: Work) -> Work:
    """The GPU's part of the work, to be replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def shown(value: float) -> str:
    return f"{value * 1e6:,.0f} us" if value < 1e-3 else f"{value * 1e3:,.1f} ms"


def beside(ours: float, **others: float) -> str:
    """A time and how many times as long the others take."""
    parts = [f"{name} {shown(value)}, {value / ours:.1f} x" for name, value in others.items()]
    return "; ".join([shown(ours), *parts])


def to_gpu(values: Iterable[Tensor]) -> list[Tensor]:
    return [value.cuda() for value in values]


def ratings_on_gpu(shape: str) -> Ratings:
    data = ratings_like(shape)
    columns = to_gpu((data.users, data.items, data.ratings, data.order))
    return Ratings(data.n_users, data.n_items, *columns)


def tables(data: Ratings) -> tuple[Tensor, Tensor]:
    user, item = to_gpu(mf_epoch.tables(data))
    return user, item


def epoch(data: Ratings, batch: int, user: Tensor, item: Tensor, **perturbation: Any) -> Tensor:
    return mf_sgd_epoch_(
        user, item, data.users, data.items, data.ratings, data.order,
        lr=mf_epoch.LR * 256 / batch, batch_size=batch, **perturbation,
    )  # fmt: skip


def mf_epochs() -> Iterator[Time]:
    for shape in ("movies", "books"):
        data = ratings_on_gpu(shape)
        start = tables(data)
        part = dataclasses.replace(data, order=data.order[: TORCH_BATCHES * mf_epoch.BATCH])
        loop = partial(mf_epoch.torch_index_add, *tables(data), part, part.order)
        share = len(data.order) / len(part.order)
        eager, graph = share * seconds(loop), share * seconds(graph_of(loop))
        for batch in (256, 4096, 65_536):
            plain = seconds(partial(epoch, data, batch, *start))
            peers = {"torch": eager, "graph": graph} if batch == 256 else {}
            yield f"MF epoch, {shape}, batch {batch:,}", beside(plain, **peers)
            sharp = seconds(partial(epoch, data, batch, *start, **mf_epoch.SMF))
            yield f"SMF epoch, {shape}, batch {batch:,}", shown(sharp)
    yield "8 MF epochs of movies side by side", side_by_side(ratings_on_gpu("movies"))


def side_by_side(data: Ratings, trainings: int = 8) -> str:
    """Independent trainings, each in a Python thread and on a stream of its own."""
    starts = [tables(data) for _ in range(trainings)]

    def one(start: tuple[Tensor, Tensor]) -> None:
        with own_stream(torch.device("cuda")):
            epoch(data, 256, *start)

    alone = seconds(partial(one, starts[0]))
    with ThreadPoolExecutor(trainings) as pool:
        together = seconds(lambda: list(pool.map(one, starts)))
    return f"{shown(together)}; one alone {shown(alone)}"


def mapping_epochs() -> Iterator[Time]:
    data = {k: v.cuda() for k, v in mapping_epoch.problem().items()}
    ours = seconds(partial(mapping_epoch.scdr_epoch, data))
    part = {**data, "order": data["order"][: TORCH_BATCHES // 10 * mapping_epoch.BATCH]}
    share = len(data["order"]) / len(part["order"])
    eager = share * seconds(partial(mapping_epoch.torch_epoch, part))
    by_hand = share * seconds(partial(mapping_epoch.epoch_by(mapping_epoch.by_hand), part))
    yield (
        f"mapping epoch, {len(data['order']):,} rows, batch 256",
        beside(ours, torch=eager, by_hand=by_hand),
    )


def perturbations() -> Iterator[Time]:
    mapping = nn.Sequential(
        nn.Linear(pgd.D, pgd.HIDDEN), nn.Tanh(), nn.Linear(pgd.HIDDEN, pgd.D)
    ).cuda()
    mapping.requires_grad_(False)
    for rows in (256, 4096, 65_536, 1 << 20):
        user, item = to_gpu(torch.randn(2, rows, pgd.D))
        given = user, item, 5 * torch.rand(rows, device="cuda")
        ours = seconds(partial(pgd_perturb, *given, mapping, **pgd.PGD), calls=20)
        folded = partial(pgd.folded, *given, mapping)
        eager, graph = seconds(folded, calls=20), seconds(graph_of(folded), calls=20)
        yield f"PGD through an MLP, {rows:,} rows", beside(ours, torch=eager, graph=graph)


def losses() -> Iterator[Time]:
    mapping = nn.Sequential(nn.Linear(10, 50), nn.Tanh(), nn.Linear(50, 10)).cuda()
    rows = 65_536
    user = torch.randn(rows, 10, device="cuda", requires_grad=True)
    item, rating = torch.randn(rows, 10, device="cuda"), torch.randn(rows, device="cuda")

    def forward_and_backward(loss: Callable[..., Tensor]) -> None:
        user.grad = None
        mapping.zero_grad()
        loss(user, item, rating, mapping, steps=5, radius=5.0).mean().backward()

    ours = seconds(partial(forward_and_backward, sharp_mapping_loss))
    loop = seconds(partial(forward_and_backward, reference.sharp_mapping_loss))
    yield f"sharp mapping loss and gradients, {rows:,} rows", beside(ours, torch=loop)


def recommendations() -> Iterator[Time]:
    users, items = to_gpu(topk.vectors(topk.N_USERS))
    ours = seconds(partial(topk.scdr_recommend, users, items))
    sizes = (64, 256, 1024, 4096)
    blocks = {n: seconds(partial(topk.in_blocks(topk.block_topk, n), users, items)) for n in sizes}
    fastest = min(blocks, key=lambda n: blocks[n])
    what = f"top {topk.K} of {len(items):,} items, {len(users):,} users"
    yield what, f"{beside(ours, torch=blocks[fastest])} (blocks of {fastest})"


def copy_speed() -> Iterator[Time]:
    source = torch.rand(1 << 28, device="cuda")
    target = torch.empty_like(source)
    time_of_copy = seconds(partial(target.copy_, source))
    yield "copy of 1 GiB", f"{2 * source.nbytes / time_of_copy / 1e12:.2f} TB/s read and written"


def all_times() -> Iterator[Time]:
    for part in (copy_speed, mf_epochs, mapping_epochs, perturbations, losses, recommendations):
        yield from part()

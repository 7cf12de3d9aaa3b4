"""Serving at the Books shape: 368,000 target items, d = 10 and biases, a network as mapping.

    python bench/serving_load.py [--short]

One user's top 20 through the library, by id and by a history of 20 ratings; a batch of 10,000
users; and both over HTTP on loopback, from one client and from eight. The peer is the product and
`torch.topk`, of one user, or in the fastest blocks for many; its items are checked equal first.
Vectors are normal, which leaves the bound on scores less to leave out than trained ones do.
Wall time and, where it is one thread's, CPU time, which a busy machine disturbs less.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shapes import SHAPES

from scdr.data import CrossDomain, from_columns
from scdr.methods.base import FactorPredictor
from scdr.models import Factors, TargetItems
from scdr.models.fold_in import RidgeFoldIn
from scdr.models.mapping import tanh_mlp
from scdr.serving import Predictor

SHORT = "--short" in sys.argv
USERS, ITEMS = (size // (40 if SHORT else 1) for size in SHAPES["books"][:2])
REQUESTS, BATCH, K, D = (100 if SHORT else 1_000), (400 if SHORT else 10_000), 20, 10
BLOCK = 16


def write_model(path: Path) -> None:
    """A model of random factors with the sizes of one that was trained."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    source = from_columns(
        [f"u{n:06}" for n in range(USERS)],
        [f"s{n % ITEMS:06}" for n in range(USERS)],
        np.ones(USERS),
    )
    target = from_columns(
        ["t"] * ITEMS, [f"i{n:06}" for n in range(ITEMS)], np.ones(ITEMS, dtype=np.float32)
    )
    factors = Factors(
        torch.zeros(1, D), normal(source.n_items, D), torch.zeros(1), normal(source.n_items), 4.0
    )
    vectors = torch.cat([normal(ITEMS + 1, D), torch.ones(ITEMS + 1, 1)], dim=1)
    offsets = 4 + 0.4 * normal(ITEMS + 1)
    mapping = tanh_mlp(D + 1, 50, D + 1, zero_readout=False, generator=random)
    with torch.no_grad():
        mapping[2].weight.mul_(5)  # to outputs of about deviation 1, as the items have
    predictor = FactorPredictor(
        normal(USERS, D + 1),
        mapping.requires_grad_(False),
        TargetItems(vectors, offsets, offsets),
        fold_in=RidgeFoldIn.of(factors, user_penalty=7.0, user_bias_penalty=5.0),
    )
    domains = CrossDomain(
        source=source, target=target, overlap=np.zeros((0, 2), dtype=np.int32), name="bench"
    )
    predictor.save(path, domains=domains, metadata={"clip": True, "rating_range": [1.0, 5.0]})


def one_by_one(name: str, requests: Iterable[Callable[[], Any]]) -> float:
    """Time each call; prints quantiles, returns the median of wall time in ms."""
    wall, cpu = [], []
    for request in requests:
        begin = time.perf_counter(), time.thread_time()
        request()
        wall.append((time.perf_counter() - begin[0]) * 1e3)
        cpu.append((time.thread_time() - begin[1]) * 1e3)
    line = "  ".join(f"{q:.0%} {np.quantile(wall, q):7.2f}" for q in (0.5, 0.9, 0.99))
    print(f"{name:<44} {line}  CPU 50% {np.median(cpu):7.2f} ms")
    return float(np.median(wall))


def library(predictor: Predictor) -> None:
    torch.set_num_threads(1)
    ids = [f"u{n:06}" for n in np.random.default_rng(0).permutation(USERS)]
    items = predictor._model.items
    vectors, offsets = items.vectors[:-1].contiguous(), items.offsets[:-1].contiguous()
    mapped = predictor.vectors(ids[:BATCH], predictor_histories(BATCH))[0]
    for n in range(20):  # the same items, before any is timed
        scores = offsets + vectors @ mapped[n]
        found = [int(item[1:]) for item in predictor.recommend(ids[n], K).items]
        torch.testing.assert_close(scores[found], scores.topk(K).values)
    print(f"one user's top {K} of {ITEMS:,} items, {REQUESTS:,} times, one core")
    ours = one_by_one(
        "by id", ((lambda u=user: predictor.recommend(u, K)) for user in ids[:REQUESTS])
    )
    random = np.random.default_rng(1)
    histories = [
        {f"s{n:06}": float(r) for n, r in zip(*rated, strict=True)}
        for rated in zip(
            random.integers(ITEMS, size=(REQUESTS, 20)),
            random.integers(1, 6, size=(REQUESTS, 20)),
            strict=True,
        )
    ]
    one_by_one(
        "by a history of 20 ratings",
        ((lambda h=history: predictor.recommend(h, K)) for history in histories),
    )
    exclude = [f"i{n:06}" for n in range(0, ITEMS, max(ITEMS // 100, 1))]
    one_by_one(
        "by id, 100 items left out",
        ((lambda u=user: predictor.recommend(u, K, exclude)) for user in ids[:REQUESTS]),
    )
    peer = one_by_one(
        "product and torch.topk, of a vector at hand",
        ((lambda n=n: torch.topk(offsets + vectors @ mapped[n], K)) for n in range(REQUESTS // 5)),
    )
    print(f"{'':<44} {peer / ours:.1f} x")

    print(f"the top {K} of {BATCH:,} users, one core")
    begin = time.perf_counter(), time.process_time()
    predictor.recommend(ids[:BATCH], K)
    ours, ours_cpu = time.perf_counter() - begin[0], time.process_time() - begin[1]
    buffer = torch.empty(BLOCK, ITEMS)
    some = mapped[: max(BATCH // 10, BLOCK)]
    begin = time.perf_counter(), time.process_time()
    for block in some.split(BLOCK):
        scores = buffer[: len(block)]
        torch.mm(block, vectors.T, out=scores)
        torch.topk(scores.add_(offsets), K)
    share = BATCH / len(some)
    peer = (time.perf_counter() - begin[0]) * share
    peer_cpu = (time.process_time() - begin[1]) * share
    print(f"library {ours:.2f} s, CPU {ours_cpu:.2f} s; product and torch.topk {peer:.2f} s, ")
    print(f"CPU {peer_cpu:.2f} s (from {len(some):,} users): {peer / ours:.1f} x, ", end="")
    print(f"CPU {peer_cpu / ours_cpu:.1f} x")


def predictor_histories(n: int) -> Any:
    from scdr.serving.answers import coded_histories

    return coded_histories([()] * n, {})


def loopback(model: Path) -> None:
    command = [sys.executable, "-m", "scdr.serve", str(model), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://([\d.]+):(\d+)", process.stdout.readline())
        assert found is not None
        host, port = found[1], int(found[2])

        def client(users: Iterable[int]) -> list[float]:
            connection = http.client.HTTPConnection(host, port)
            times = []
            for user in users:
                body = json.dumps({"users": [{"id": f"u{user % USERS:06}"}], "k": K})
                begin = time.perf_counter()
                connection.request("POST", "/recommend", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                assert answer.status == 200 and len(answer.read()) > 100
                times.append((time.perf_counter() - begin) * 1e3)
            return times

        client(range(20))
        for clients in (1, 8):
            begin = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                parts = [range(n, REQUESTS, clients) for n in range(clients)]
                times = np.concatenate(list(pool.map(client, parts)))
            seconds = time.perf_counter() - begin
            line = "  ".join(f"{q:.0%} {np.quantile(times, q):7.2f}" for q in (0.5, 0.9, 0.99))
            print(f"{f'{clients} at a time':<44} {line} ms  {REQUESTS / seconds:.0f} a second")
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.safetensors"
        write_model(model)
        begin = time.perf_counter()
        predictor = Predictor.load(model)
        seconds = time.perf_counter() - begin
        print(f"{model.stat().st_size / 1e6:.0f} MB, loaded in {seconds:.1f} s")
        library(predictor)
        print(f"one user's top {K} over HTTP on loopback, {REQUESTS:,} requests")
        loopback(model)


if __name__ == "__main__":
    main()

"""Pretraining of both domains, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

import torch

from scdr.data import Interactions, TrainingData
from scdr.methods.base import FitContext
from scdr.models import Factors, PretrainConfig, pretrain, pretrain_graph
from scdr.ops.streams import own_stream
from scdr.ops.threads import torch_threads

_DOMAINS = ("source", "target", "joint")


def pretrain_domain(
    interactions: Interactions, config: PretrainConfig, context: FitContext, domain: str
) -> Factors:
    """The factors of one domain; what is random depends on the seed and the domain alone.

    Args:
        interactions: training ratings.
        config: hyper-parameters.
        context: seed, device, progress.
        domain: "source", "target", or "joint" for the rows of both at once.

    Raises:
        DivergenceError: the factors left the finite numbers.
    """
    stage = f"pretrain {domain}"
    seed = (context.seed, _DOMAINS.index(domain))
    graph = config.backbone != "mf"
    epochs = config.graph.epochs + config.graph.sharp_epochs if graph else config.epochs
    train_factors = pretrain_graph if graph else pretrain

    def train() -> Factors:
        with own_stream(context.device), context.stage(stage, epochs) as advance:
            return train_factors(
                interactions,
                config,
                seed=seed,
                device=context.device,
                advance=advance,
                stage=stage,
                between_slices=lambda done, total: context.progress.end_if_cancelled(stage),
            )

    return context.pretrained.get_or_train(
        interactions, config, seed=seed, device=context.device, train=train
    )


def _join(futures: Iterable[Future[Factors]]) -> None:
    """Wait for all, or for the first error, awake often enough for Ctrl-C to get through."""
    running = set(futures)
    while running:
        done, running = wait(running, timeout=0.1)
        for future in done:
            future.result()


def pretrain_domains(
    data: TrainingData, config: PretrainConfig, context: FitContext
) -> tuple[Factors, Factors]:
    """Source and target factors, on two cores where there are two and the optimiser uses them.

    On CUDA the target's are trained on a second GPU where there is one; all are left on the first.

    Raises:
        DivergenceError: the factors left the finite numbers.
    """
    # Dense Adam is many short calls, in two threads slowed down by the lock that they share.
    workers = 1 if config.optimizer == "dense_adam" else min(context.threads, 2)
    with (
        context.progress.timed("pretrain"),
        torch_threads(context.threads // workers),
        ThreadPoolExecutor(max_workers=workers) as pool,
    ):
        source, target = (
            pool.submit(
                pretrain_domain, interactions, config, replace(context, device=device), domain
            )
            for interactions, domain, device in zip(
                (data.source, data.target), _DOMAINS[:2], _devices(context.device), strict=True
            )
        )
        try:
            _join((source, target))
        except BaseException:
            # The pool waits for the other domain: let it end at its next slice.
            context.progress.cancel()
            raise
        return source.result(), target.result().to(context.device)


def _devices(device: torch.device) -> tuple[torch.device, torch.device]:
    """Where to train the source's factors and the target's."""
    if device.type != "cuda" or torch.cuda.device_count() < 2:
        return device, device
    first = device.index or 0
    return torch.device("cuda", first), torch.device(
        "cuda", (first + 1) % torch.cuda.device_count()
    )

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from scdr.data import Interactions, planted
from scdr.errors import DivergenceError, InputError
from scdr.models import Factors, PretrainConfig, pretrain_graph
from scdr.models.backbones import Backbone, GraphConfig
from scdr.models.graph_training import GraphTraining, _held_out
from scdr.models.mf import PAPER_PRETRAIN
from scdr.ops import pgd_perturb
from scdr.ops.threads import one_thread, torch_threads

CPU = torch.device("cpu")
GRAPHS: tuple[Backbone, ...] = ("lightgcn", "ngcf")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with one_thread():
        yield


def ratings(users: int = 60, items: int = 25, ratings_per_user: int = 12) -> Interactions:
    return planted(
        source_users=users,
        overlap_users=20,
        target_only_users=10,
        source_items=items,
        target_items=10,
        source_ratings_per_user=ratings_per_user,
        target_ratings_per_user=5,
        signal=0.8,
        seed=1,
    ).domains.source


def train(
    backbone: Backbone, *, start: PretrainConfig = PAPER_PRETRAIN, **graph: Any
) -> tuple[Factors, list[dict[str, float]]]:
    told: list[dict[str, float]] = []
    factors = pretrain_graph(
        ratings(),
        replace(start, backbone=backbone, graph=GraphConfig(batch_size=128, **graph)),
        seed=(3, 0),
        device=CPU,
        advance=lambda **values: told.append(values),
        stage="pretrain source",
    )
    return factors, told


@pytest.mark.parametrize("backbone", GRAPHS)
def test_held_out_ratings_are_predicted_better_than_by_biases(backbone: Backbone) -> None:
    data = ratings(users=200, items=80, ratings_per_user=40)
    hidden = np.random.default_rng(0).random(len(data)) < 0.2
    config = PretrainConfig(
        backbone=backbone, graph=GraphConfig(sharp_epochs=0, penalty=0.2, batch_size=1024)
    )
    factors = pretrain_graph(
        data.take(~hidden), config, seed=(0,), device=CPU, advance=lambda **_: None, stage="x"
    )
    assert factors.user_bias is not None and factors.item_bias is not None
    biases = factors.offset + factors.user_bias[:, None] + factors.item_bias
    whole = biases + factors.user @ factors.item.T
    rmse = [
        float(np.sqrt(((table.numpy()[data.users, data.items] - data.ratings)[hidden] ** 2).mean()))
        for table in (biases, whole)
    ]
    assert rmse[1] < 0.9 * rmse[0]


@pytest.mark.parametrize(("backbone", "width"), [("lightgcn", 10), ("ngcf", 40)])
@pytest.mark.parametrize("biases", [False, True])
def test_output_vectors_are_factors(backbone: Backbone, width: int, biases: bool) -> None:
    factors, _ = train(backbone, start=replace(PAPER_PRETRAIN, biases=biases), epochs=2)
    data = ratings()
    assert factors.user.shape == (data.n_users, width)
    assert factors.item.shape == (data.n_items, width)
    assert (factors.user_bias is not None) == biases
    assert factors.user_vectors().shape[1] == width + biases
    assert not factors.user.requires_grad


@pytest.mark.parametrize("backbone", GRAPHS)
def test_results_are_the_same_to_the_bit_at_any_number_of_threads(backbone: Backbone) -> None:
    results = []
    for threads in (1, 2):
        with torch_threads(threads):
            results.append(train(backbone, epochs=3, sharp_epochs=2)[0])
    assert torch.equal(results[0].user, results[1].user)
    assert torch.equal(results[0].item, results[1].item)


def test_the_epoch_with_the_lowest_held_out_error_is_kept() -> None:
    options: dict[str, Any] = {"sharp_epochs": 0, "penalty": 0.0, "patience": 4}
    _, told = train("ngcf", epochs=100, **options)
    validation = [values["validation"] for values in told]
    best = int(np.argmin(validation))
    assert len(told) == best + 1 + 4  # it stopped once four epochs were no better
    until, _ = train("ngcf", epochs=best + 1, **options)
    assert torch.equal(train("ngcf", epochs=100, **options)[0].user, until.user)


def test_the_sharp_phase_follows_the_plain_one_and_lowers_the_sharp_loss() -> None:
    plain, told = train("lightgcn", epochs=40, sharp_epochs=0)
    sharp, more = train("lightgcn", epochs=40, sharp_epochs=15)
    assert more[: len(told)] == told
    assert len(more) > len(told)
    data = ratings()

    def sharp_error(factors: Factors) -> float:
        u, v = factors.user[data.users], factors.item[data.items]
        rating = torch.from_numpy(data.ratings)
        u = u + pgd_perturb(u, v, rating, steps=5, radius=1.0)
        return float(((u * v).sum(1) - rating).square().mean())

    assert sharp_error(sharp) < 0.9 * sharp_error(plain)


def test_a_step_is_adams_on_the_mean_of_the_loss_and_the_penalties() -> None:
    """One full batch of LightGCN in float64, by autograd through dense matrices."""
    data = ratings()
    config = replace(
        PAPER_PRETRAIN,
        backbone="lightgcn",
        steps=0,
        graph=GraphConfig(layers=2, batch_size=10**6, validation_fraction=0.0, penalty=3.0),
    )
    before, after = (GraphTraining(data, config, seed=(3, 0), device=CPU) for _ in range(2))
    start = [value.double().clone() for value in before.state_dict()["parameters"]]
    after.epoch()
    user, item = (value.clone().requires_grad_() for value in start)
    a = torch.zeros(data.n_users, data.n_items, dtype=torch.float64)
    a[data.users, data.items] = 1
    a = a / a.sum(1, keepdim=True).sqrt() / a.sum(0).sqrt()
    users, items = user + a @ item + a @ (a.T @ user), item + a.T @ user + a.T @ (a @ item)
    error = (users @ items.T / 9)[data.users, data.items] - torch.from_numpy(data.ratings)
    loss = (error**2).mean() + 3.0 / len(data) * ((user**2).sum() + (item**2).sum())
    optimizer = torch.optim.Adam([user, item], lr=config.graph.learning_rate)
    loss.backward()
    optimizer.step()
    for ours, theirs in zip(after.state_dict()["parameters"], (user, item), strict=True):
        torch.testing.assert_close(ours.double(), theirs.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", GRAPHS)
def test_training_goes_on_from_its_state_as_if_it_had_not_stopped(backbone: Backbone) -> None:
    config = replace(PAPER_PRETRAIN, backbone=backbone, graph=GraphConfig(epochs=3, sharp_epochs=3))

    def new() -> GraphTraining:
        return GraphTraining(ratings(), config, seed=(3, 0), device=CPU)

    whole = new()
    for _ in range(5):
        whole.epoch()
    for stop in (2, 4):  # in the plain phase and in the sharp one
        first = new()
        for _ in range(stop):
            first.epoch()
        second = new()
        second.load_state_dict(first.state_dict())
        for _ in range(5 - stop):
            second.epoch()
        assert torch.equal(second.factors().user, whole.factors().user)


def test_no_user_and_no_item_loses_its_last_rating() -> None:
    data = ratings()
    held_out = _held_out(data, 0.95, np.random.default_rng(0))
    assert 0 < held_out.sum() < 0.95 * len(data)
    assert set(data.users[~held_out]) == set(data.users)
    assert set(data.items[~held_out]) == set(data.items)


def test_divergence_names_the_stage_and_what_to_lower() -> None:
    with pytest.raises(DivergenceError, match=r"pretrain source, epoch \d+ .*learning-rate"):
        train("ngcf", learning_rate=1e20, epochs=5)


def test_vectors_too_wide_for_the_kernels_are_refused() -> None:
    with pytest.raises(InputError, match=r"NGCF's vectors would be 260 wide"):
        train("ngcf", start=replace(PAPER_PRETRAIN, dimension=65))

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scdr.errors import DivergenceError
from scdr.models import MappingConfig, TargetItems, train_mapping
from scdr.models.mapping import PAPER_MAPPING, MappingRows, tanh_mlp
from scdr.ops import reference


def problem(n_users: int = 60, n_items: int = 40) -> tuple[torch.Tensor, TargetItems, MappingRows]:
    """Ratings that are a linear map of the source vectors away from the item vectors."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(n_users, 4, generator=generator)
    truth = torch.randn(4, 3, generator=generator) / 2
    vectors = torch.randn(n_items + 1, 3, generator=generator)
    items = TargetItems(vectors, torch.full((n_items + 1,), 3.0), torch.full((n_items + 1,), 3.0))
    users = torch.arange(n_users).repeat_interleave(15)
    rated = torch.randint(n_items, (len(users),), generator=generator)
    ratings = 3 + ((source @ truth)[users] * vectors[rated]).sum(1)
    return source, items, MappingRows(users, rated, ratings)


def loss_of(mapping: torch.nn.Module, source: torch.Tensor, items: TargetItems, rows: MappingRows):
    predicted = items.offsets[rows.items] + (
        mapping(source[rows.users]) * items.vectors[rows.items]
    ).sum(1)
    return float(((predicted - rows.ratings) ** 2).mean())


@pytest.mark.parametrize("standardise", [True, False])
def test_learns_a_map_and_works_on_the_vectors_it_was_given(standardise: bool) -> None:
    source, items, rows = problem()
    shifted = 5 * source + 2
    config = MappingConfig(
        epochs=80, learning_rate=0.01, weight_decay=0.0, radius=0.01, standardise=standardise
    )
    mapping, vectors = train_mapping(
        shifted if standardise else source,
        items,
        rows,
        None,
        config,
        seed=(0,),
        advance=lambda **_: None,
    )
    before = float(((items.offsets[rows.items] - rows.ratings) ** 2).mean())
    assert loss_of(mapping, vectors, items, rows) < 0.05 * before


def test_one_sgd_step_is_eq_8_and_15_worked_by_hand() -> None:
    source, items, rows = problem()
    config = replace(PAPER_MAPPING, epochs=1, batch_size=10_000, radius=0.7)
    mapping, vectors = train_mapping(
        source, items, rows, None, config, seed=(3,), advance=lambda **_: None
    )
    generator = torch.Generator().manual_seed(3)
    start = tanh_mlp(4, 50, 3, zero_readout=False, generator=generator)
    user = source.clone().requires_grad_()
    residual, item = rows.ratings - 3, items.vectors[rows.items]
    delta = reference.pgd_perturb(user[rows.users], item, residual, start, steps=5, radius=0.7)
    loss = ((start(user[rows.users] + delta) * item).sum(1) - residual) ** 2
    loss.mean().backward()
    # float32 sums over 900 rows in another order.
    torch.testing.assert_close(vectors, source - 0.01 * user.grad, rtol=1e-4, atol=1e-6)
    for trained, initial in zip(mapping.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(trained, initial - 0.01 * initial.grad, rtol=1e-4, atol=1e-6)


def test_only_training_users_vectors_move_and_only_if_asked() -> None:
    source, items, rows = problem()
    some = rows.users < 30
    part = MappingRows(rows.users[some], rows.items[some], rows.ratings[some])
    for train_user in (True, False):
        config = MappingConfig(epochs=2, train_user=train_user, standardise=False)
        _, vectors = train_mapping(
            source, items, part, None, config, seed=(0,), advance=lambda **_: None
        )
        assert torch.equal(vectors[30:], source[30:])
        assert torch.equal(vectors[:30], source[:30]) is not train_user


def test_the_epoch_kept_is_the_best_on_validation_users() -> None:
    source, items, rows = problem()
    first = rows.users < 50
    train = MappingRows(rows.users[first], rows.items[first], rows.ratings[first])
    noise = torch.randn(int((~first).sum()), generator=torch.Generator().manual_seed(1))
    held = MappingRows(rows.users[~first], rows.items[~first], rows.ratings[~first] + noise)
    seen: list[float] = []
    config = MappingConfig(epochs=60, learning_rate=0.03, weight_decay=0.0, patience=4)
    mapping, vectors = train_mapping(
        source,
        items,
        train,
        held,
        config,
        seed=(0,),
        advance=lambda **values: seen.append(values["validation"]),
    )
    assert loss_of(mapping, vectors, items, held) ** 0.5 == pytest.approx(min(seen), rel=1e-4)
    assert len(seen) == 60 or len(seen) - 1 - seen.index(min(seen)) == 4


def test_divergence_names_the_stage_and_what_to_lower() -> None:
    source, items, rows = problem()
    config = replace(PAPER_MAPPING, learning_rate=1e20)
    with pytest.raises(DivergenceError, match=r"mapping, epoch \d+ of 10.*learning-rate"):
        train_mapping(source, items, rows, None, config, seed=(0,), advance=lambda **_: None)

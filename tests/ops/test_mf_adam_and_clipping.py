"""mf_sgd_epoch_ where it needs the gradient of a batch as a whole: Adam and clipping."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from scdr.ops import mf_sgd_epoch_, reference
from scdr.ops.adam import AdamState
from scdr.ops.mf_sgd_epoch import SpoiltTablesError

TABLES = ("user", "item", "user_bias", "item_bias")
MF: dict[str, Any] = {}
SMF: dict[str, Any] = {"steps": 5, "radius": 1.0}
EXACT: dict[str, Any] = {"steps": 1, "radius": 0.5, "inner": "exact"}
PENALTIES = {
    "user_penalty": 0.3,
    "item_penalty": 0.2,
    "user_bias_penalty": 0.1,
    "item_bias_penalty": 0.05,
}
# As of the tests of SGD; some batches go by before a rounded gradient of almost 0, whose sign Adam
# follows, moves a factor by more than that.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def problem(
    n: int,
    d: int,
    *,
    n_users: int = 12,
    n_items: int = 9,
    with_biases: bool = True,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """Few users and items, so that a batch holds many duplicates."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    tensors = {"user": normal(n_users, d) * d**-0.5, "item": normal(n_items, d) * d**-0.5}
    if with_biases:
        tensors |= {"user_bias": normal(n_users) * 0.3, "item_bias": normal(n_items) * 0.3}
    for name, high in (("users", n_users), ("items", n_items)):
        tensors[name] = torch.randint(high, (n,), generator=random, dtype=torch.int32)
    ratings = torch.randint(1, 6, (n,), generator=random).float()
    tensors |= {"ratings": ratings, "order": torch.randperm(n, generator=random)}
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def tables_of(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensors[name] for name in TABLES if name in tensors}


def in_double(arguments: dict[str, Any]) -> dict[str, Any]:
    """On the CPU, in float64 where it was float32."""
    doubled = dict(arguments)
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            doubled[name] = value.cpu().double() if value.is_floating_point() else value.cpu()
    if doubled.get("adam") is not None:
        adam = copy.deepcopy(doubled["adam"])
        adam.first = {name: moment.cpu().double() for name, moment in adam.first.items()}
        adam.second = {name: moment.cpu().double() for name, moment in adam.second.items()}
        doubled["adam"] = adam
    return doubled


def everything(loss: Tensor, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """The loss, the tables and the moments, by name, on the CPU."""
    result = {"loss": loss, **tables_of(arguments)}
    adam: AdamState | None = arguments.get("adam")
    if adam is not None:
        result |= {f"first of {name}": moment for name, moment in adam.first.items()}
        result |= {f"second of {name}": moment for name, moment in adam.second.items()}
        result["step"] = torch.tensor(adam.step)
    return {name: tensor.cpu() for name, tensor in result.items()}


def train_with_torch(
    tensors: dict[str, Tensor], *, adam: bool, clip_norm: float | None, lr: float, batch_size: int
) -> dict[str, Tensor]:
    """Tables after an epoch of L_MF with penalties, by torch's optimisers, in float64."""
    tensors = in_double(tensors)
    tables = {name: table.requires_grad_() for name, table in tables_of(tensors).items()}
    parameters = list(tables.values())
    optimiser: torch.optim.Optimizer = (
        torch.optim.SparseAdam(parameters, lr) if adam else torch.optim.SGD(parameters, lr)
    )
    for rows in tensors["order"].split(batch_size):
        i, j = tensors["users"][rows].long(), tensors["items"][rows].long()
        u, v = tables["user"][i], tables["item"][j]
        b_u, b_i = tables["user_bias"][i], tables["item_bias"][j]
        error = (u * v).sum(1) + b_u + b_i - tensors["ratings"][rows]
        penalty = (
            PENALTIES["user_penalty"] * u.square().sum()
            + PENALTIES["item_penalty"] * v.square().sum()
            + PENALTIES["user_bias_penalty"] * b_u.square().sum()
            + PENALTIES["item_bias_penalty"] * b_i.square().sum()
        )
        optimiser.zero_grad()
        (error.square().sum() + penalty).backward()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        if adam:
            for name, table in tables.items():
                visited = (i if name.startswith("user") else j).unique()
                assert table.grad is not None
                table.grad = torch.sparse_coo_tensor(
                    visited[None], table.grad[visited], table.shape, check_invariants=True
                )
        optimiser.step()
    return {name: table.detach() for name, table in tables.items()}


@pytest.mark.parametrize("clip_norm", [None, 3.0], ids=["free", "clipped"])
@pytest.mark.parametrize("adam", [True, False], ids=["adam", "sgd"])
@pytest.mark.parametrize("batch_size", [1, 16, 600])
def test_like_torch_optimisers(
    adam: bool, clip_norm: float | None, batch_size: int, device: str
) -> None:
    tensors = problem(40 if batch_size == 1 else 600, 10, device=device)
    settings: dict[str, Any] = {"lr": 0.01 if adam else 0.003, "batch_size": batch_size}
    settings["clip_norm"] = clip_norm
    expected = train_with_torch(tensors, adam=adam, **settings)
    state = AdamState.zeros(**tables_of(tensors)) if adam else None
    mf_sgd_epoch_(**tensors, **settings, **PENALTIES, adam=state)
    for name, table in expected.items():
        torch.testing.assert_close(tensors[name].cpu().double(), table, **TOLERANCE)


@pytest.mark.parametrize("perturbation", [MF, SMF, EXACT], ids=["mf", "smf", "exact"])
@pytest.mark.parametrize("d", [1, 3, 8, 10, 13, 16, 32, 64, 256])
@pytest.mark.parametrize("adam", [True, False], ids=["adam", "sgd"])
@pytest.mark.parametrize("with_biases", [False, True], ids=["plain", "biases"])
def test_like_reference(
    d: int, adam: bool, with_biases: bool, perturbation: dict[str, Any], device: str
) -> None:
    """Thirty batches, the last a short one, clipped here and there."""
    tensors = problem(30 * 12 - 5, d, with_biases=with_biases, device=device)
    arguments = {**tensors, **perturbation, **(PENALTIES if with_biases else {})}
    arguments |= {"lr": 0.01 if adam else 0.003, "batch_size": 12, "clip_norm": 50.0}
    arguments["user_inverse_count"] = torch.linspace(0.1, 1, 12, device=device)
    if adam:
        arguments["adam"] = AdamState.zeros(**tables_of(tensors), beta1=0.8, beta2=0.95, eps=1e-6)
    expected = in_double(arguments)
    reference_loss = reference.mf_sgd_epoch_(**expected)
    actual = everything(mf_sgd_epoch_(**arguments), arguments)
    for name, value in everything(reference_loss, expected).items():
        torch.testing.assert_close(actual[name].double(), value.double(), **TOLERANCE)
    if adam:
        assert arguments["adam"].step == 30


def test_clipping_sets_the_length_of_the_step(device: str) -> None:
    """Of all tables together, and leaves a shorter gradient alone."""
    before = problem(50, 10, device=device)
    after = copy.deepcopy(before)
    mf_sgd_epoch_(**after, lr=0.25, batch_size=50, clip_norm=2.0)
    moved = [(after[name] - before[name]).flatten() for name in TABLES]
    assert torch.cat(moved).norm().item() == pytest.approx(0.25 * 2.0, rel=1e-5)
    free, loose = copy.deepcopy(before), copy.deepcopy(before)
    mf_sgd_epoch_(**free, lr=1e-3, batch_size=50)
    mf_sgd_epoch_(**loose, lr=1e-3, batch_size=50, clip_norm=1e6)
    for name in TABLES:
        torch.testing.assert_close(loose[name], free[name])


def test_clipping_a_gradient_whose_square_is_no_float(device: str) -> None:
    tensors = problem(1, 10, n_users=1, n_items=1, with_biases=False, device=device)
    tensors["ratings"].fill_(1e25)
    before = tensors["user"].clone()
    item = tensors["item"].clone()
    mf_sgd_epoch_(**tensors, lr=1.0, batch_size=1, clip_norm=1.0)
    both = torch.cat([before, item])
    expected = before + item / both.norm()
    torch.testing.assert_close(tensors["user"], expected)


@pytest.mark.parametrize("adam", [True, False], ids=["adam", "sgd"])
def test_rows_that_do_not_occur_rest(adam: bool, device: str) -> None:
    tensors = problem(300, 10, device=device)
    settings = {"lr": 0.01, "batch_size": 40, "clip_norm": 5.0, **SMF}
    larger = dict(tensors)
    for name in tables_of(tensors):
        beyond = torch.full((500, *tensors[name].shape[1:]), float("nan"), device=device)
        larger[name] = torch.cat([tensors[name], beyond])
    results = []
    for arguments in (tensors, larger):
        state = AdamState.zeros(**tables_of(arguments)) if adam else None
        loss = mf_sgd_epoch_(**arguments, **settings, adam=state)
        results.append(everything(loss, {**arguments, "adam": state}))
    for name, value in results[0].items():
        other = results[1][name]
        assert torch.equal(other[: len(value)] if value.ndim else other, value)
        rest = other[len(value) :] if value.ndim else other[None][:0]
        assert (rest.isnan() if name in TABLES else rest == 0).all()


def test_epochs_continue_each_other(device: str) -> None:
    """Two halves of an order, at the edge of a batch, are one epoch."""
    whole = problem(320, 10, device=device)
    halves = copy.deepcopy(whole)
    order = halves.pop("order")
    adams = [AdamState.zeros(**tables_of(whole)) for _ in range(2)]
    mf_sgd_epoch_(**whole, lr=0.01, batch_size=32, adam=adams[0])
    for half in order.split(160):
        mf_sgd_epoch_(**halves, order=half, lr=0.01, batch_size=32, adam=adams[1])
    assert adams[0].step == adams[1].step == 10
    zero = torch.zeros(())
    first, second = (
        everything(zero, {**tensors, "adam": adam})
        for tensors, adam in zip((whole, halves), adams, strict=True)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("batch_size", [256, 70_000, 150_000])  # threads start at 65,536
@pytest.mark.parametrize("adam", [True, False], ids=["adam", "sgd"])
def test_same_bits_at_any_number_of_threads(batch_size: int, adam: bool, threads: None) -> None:
    tensors = problem(150_000, 10, n_users=2100, n_items=900)
    results = []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        arguments: dict[str, Any] = copy.deepcopy(tensors)
        arguments["adam"] = AdamState.zeros(**tables_of(arguments)) if adam else None
        loss = mf_sgd_epoch_(
            **arguments, lr=1e-3, batch_size=batch_size, clip_norm=100.0, **PENALTIES
        )
        results.append(everything(loss, arguments))
    for result in results[1:]:
        assert all(torch.equal(result[name], results[0][name]) for name in result)


def test_divergence_leaves_a_count_of_the_batches_that_were_applied(device: str) -> None:
    tensors = problem(100, 10, n_users=100, device=device)
    tensors["users"] = torch.arange(100, dtype=torch.int32, device=device)
    row = int(tensors["order"][37])
    tensors["user"][row, 4] = float("inf")
    adam = AdamState.zeros(**tables_of(tensors))
    place = rf"error is not finite in batch 2, at position 37 of order \(row {row}\)"
    with pytest.raises(SpoiltTablesError, match=place):
        mf_sgd_epoch_(**tensors, lr=1e-3, batch_size=16, adam=adam)
    assert adam.step == 2
    touched = torch.zeros(100, dtype=torch.bool, device=device)
    touched[tensors["order"][:32]] = True
    assert torch.equal((adam.second["user"] != 0).any(1), touched)


@pytest.mark.parametrize("adam", [True, False], ids=["adam", "sgd"])
def test_a_result_that_is_no_float_is_found_in_its_batch(adam: bool, device: str) -> None:
    """The errors are finite, what a step makes of one is not; that row does not occur again."""
    tensors = problem(64, 10, n_users=64, with_biases=False, device=device)
    tensors["users"] = torch.arange(64, dtype=torch.int32, device=device)
    row = int(tensors["order"][21])
    tensors["ratings"][row] = 1e30
    state = AdamState.zeros(**tables_of(tensors)) if adam else None
    place = rf"result is not finite in batch 1, at position 21 of order \(row {row}\)"
    options: dict[str, Any] = {"clip_norm": 1e35} if adam else {"clip_norm": 1e38}
    with pytest.raises(SpoiltTablesError, match=place):
        mf_sgd_epoch_(**tensors, lr=1e9, batch_size=16, adam=state, **options)


def test_what_progress_raises_leaves_a_count_of_the_batches_that_were_applied() -> None:
    tensors = problem(3_000_000, 64, n_users=1000, n_items=1000)
    adam = AdamState.zeros(**tables_of(tensors))
    seen = 0

    def stop(done: int, total: int) -> None:
        nonlocal seen
        seen = done
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mf_sgd_epoch_(**tensors, lr=1e-4, batch_size=256, adam=adam, progress=stop)
    assert 0 < seen < 3_000_000
    assert adam.step == seen / 256


def test_opcheck(device: str) -> None:
    tensors = problem(100, 10, device=device)
    adam = AdamState.zeros(**tables_of(tensors))
    flat = {f"{name}_first": moment for name, moment in adam.first.items()}
    flat |= {f"{name}_second": moment for name, moment in adam.second.items()}
    columns = [tensors.pop(name) for name in ("user", "item", "users", "items")]
    columns += [tensors.pop(name) for name in ("ratings", "order")]
    options: dict[str, Any] = {**tensors, "lr": 0.01, "batch_size": 16, "clip_norm": 1.0}
    torch.library.opcheck(
        torch.ops.scdr.mf_sgd_epoch_.default,
        tuple(columns),
        {**options, **flat, "adam_step": torch.tensor(3)},
    )


def drop(adam: AdamState, name: str) -> None:
    del adam.first[name], adam.second[name]


WRONG: dict[str, tuple[type[Exception], str, Any]] = {
    "a table without": (ValueError, r"adam\.first is of \['item', 'item_bias', 'user'\]",
                        lambda a: drop(a, "user_bias")),
    "one of no table": (ValueError, r"adam\.second is of",
                        lambda a: a.second.update(popularity=torch.zeros(3))),
    "shape": (RuntimeError, r'adam\.first\["user"\] must have shape \[12, 10\], not \[12, 9\]',
              lambda a: a.first.update(user=torch.zeros(12, 9))),
    "dtype": (RuntimeError, r'adam\.second\["item_bias"\] must have dtype Float, not Double',
              lambda a: a.second.update(item_bias=torch.zeros(9).double())),
    "step": (RuntimeError, r"adam\.step must not be negative, not -1",
             lambda a: setattr(a, "step", -1)),
    "beta1": (RuntimeError, r"adam\.beta1 must be in \[0, 1\), not 1",
              lambda a: setattr(a, "beta1", 1.0)),
    "beta2": (RuntimeError, r"adam\.beta2 must be in \[0, 1\), not -0\.5",
              lambda a: setattr(a, "beta2", -0.5)),
    "eps": (RuntimeError, r"adam\.eps must be a positive float32, not 1e-60",
            lambda a: setattr(a, "eps", 1e-60)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_state(case: str) -> None:
    error, message, change = WRONG[case]
    tensors = problem(100, 10)
    before = copy.deepcopy(tensors)
    adam = AdamState.zeros(**tables_of(tensors))
    change(adam)
    with pytest.raises(error, match=message):
        mf_sgd_epoch_(**tensors, lr=0.01, batch_size=16, adam=adam)
    assert all(torch.equal(tensors[name], before[name]) for name in tensors)


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan"), float("inf")])
def test_wrong_norm(norm: float) -> None:
    with pytest.raises(RuntimeError, match="mf_sgd_epoch_: clip_norm must be finite and positive"):
        mf_sgd_epoch_(**problem(10, 3), lr=0.01, batch_size=5, clip_norm=norm)

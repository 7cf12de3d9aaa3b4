from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scdr
from scdr.ops import mf_sgd_epoch_, reference
from scdr.ops.adam import AdamState
from scdr.ops.mf_sgd_epoch import SpoiltTablesError
from scdr.ops.threads import torch_threads

# One float32 step rounds its products and sums to 6e-8 relative; a row of d = 33 sums 33 products,
# and a table here takes at most 40 batches of steps whose size is below 1. So 1e-5 on factors of
# order 1 is two orders above what rounding gives and far below what a wrong term would.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
MF: dict[str, Any] = {}
SMF: dict[str, Any] = {"steps": 5, "radius": 1.0}  # stopped by the ball
SHORT: dict[str, Any] = {"steps": 2, "radius": 1.0, "step_size": 0.03}  # not stopped by it
EXACT: dict[str, Any] = {"steps": 1, "radius": 0.5, "inner": "exact"}


def problem(
    n: int, d: int, *, n_users: int = 12, n_items: int = 9, seed: int = 0, device: str = "cpu"
) -> dict[str, Tensor]:
    """Float32 tables and ratings; few users and items, so that a batch holds many duplicates."""
    random = torch.Generator().manual_seed(seed)

    def indices(high: int) -> Tensor:
        return torch.randint(high, (n,), generator=random, dtype=torch.int32)

    tensors = {
        "user": torch.randn(n_users, d, generator=random) * d**-0.5,
        "item": torch.randn(n_items, d, generator=random) * d**-0.5,
        "users": indices(n_users),
        "items": indices(n_items),
        "ratings": torch.randint(1, 6, (n,), generator=random).float(),
        "order": torch.randperm(n, generator=random),
    }
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def biases(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    device = tensors["user"].device
    return {
        "user_bias": torch.randn(len(tensors["user"]), generator=random).to(device) * 0.3,
        "item_bias": torch.randn(len(tensors["item"]), generator=random).to(device) * 0.3,
    }


def penalties(tensors: dict[str, Tensor]) -> dict[str, Any]:
    counts = torch.bincount(tensors["users"].long(), minlength=len(tensors["user"]))
    return {
        "user_penalty": 0.3,
        "item_penalty": 0.2,
        "user_bias_penalty": 0.1,
        "item_bias_penalty": 0.05,
        "user_inverse_count": 1 / counts.clamp_min(1).float(),
    }


def in_double(arguments: dict[str, Any]) -> dict[str, Any]:
    def convert(value: object) -> object:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.cpu().double()
        return value.cpu() if isinstance(value, Tensor) else value

    return {name: convert(value) for name, value in arguments.items()}


WRITTEN = ("user", "item", "user_bias", "item_bias")


def assert_like_reference(arguments: dict[str, Any], **tolerance: float) -> None:
    expected = in_double(arguments)  # a copy: the reference writes to it
    expected_loss = reference.mf_sgd_epoch_(**expected)
    loss = mf_sgd_epoch_(**arguments)
    assert loss.dtype == torch.float64 and loss.shape == ()
    tolerance = {**TOLERANCE, **tolerance}
    torch.testing.assert_close(loss.cpu(), expected_loss, **tolerance)
    for name in WRITTEN:
        if name in arguments:
            actual = arguments[name].cpu().double()
            torch.testing.assert_close(actual, expected[name], **tolerance)


@pytest.mark.parametrize("perturbation", [MF, SMF, SHORT, EXACT], ids=["mf", "smf", "short", "ex"])
@pytest.mark.parametrize("batch_size", [1, 7, 256, 10_000])
@pytest.mark.parametrize("d", [1, 2, 3, 8, 10, 13, 16, 32, 33, 64, 65])
@pytest.mark.parametrize("with_biases", [False, True], ids=["plain", "biases"])
def test_like_reference(
    d: int, batch_size: int, with_biases: bool, perturbation: dict[str, Any], device: str
) -> None:
    n = 40 if batch_size == 1 else 300
    tensors = problem(n, d, device=device)
    extra = {**biases(tensors), "offset": 2.5} if with_biases else {}
    # The sum over a batch of 300 rows on 9 items needs a small rate to stay finite.
    arguments = {**tensors, **extra, **perturbation, "lr": 0.003, "batch_size": batch_size}
    assert_like_reference(arguments)


@pytest.mark.parametrize("perturbation", [MF, SMF, EXACT], ids=["mf", "smf", "exact"])
@pytest.mark.parametrize("d", [10, 33])
def test_penalties(d: int, perturbation: dict[str, Any], device: str) -> None:
    tensors = problem(300, d, device=device)
    arguments = {**tensors, **biases(tensors), **penalties(tensors), **perturbation}
    assert_like_reference({**arguments, "lr": 0.003, "batch_size": 64})
    arguments["item_inverse_count"] = torch.linspace(0.1, 1, len(tensors["item"]), device=device)
    assert_like_reference({**arguments, "lr": 0.003, "batch_size": 64})


@pytest.mark.parametrize("perturbation", [MF, SMF, EXACT], ids=["mf", "smf", "exact"])
@pytest.mark.parametrize("d", [8, 10, 13, 16, 33])
def test_rows_that_are_not_visited_change_nothing(d: int, perturbation: dict[str, Any]) -> None:
    """With many of them the CPU works on the tables as they are, with few on a padded copy."""
    tensors = problem(300, d)
    arguments = {**tensors, **biases(tensors), **penalties(tensors), **perturbation}
    arguments |= {"lr": 0.003, "batch_size": 64}
    larger = dict(arguments)
    for name in (*WRITTEN, "user_inverse_count"):
        table = arguments[name]
        arguments[name] = table.clone()
        larger[name] = torch.cat([table, torch.full((500, *table.shape[1:]), 7.0)])
    assert torch.equal(mf_sgd_epoch_(**arguments), mf_sgd_epoch_(**larger))
    for name in WRITTEN:
        assert torch.equal(larger[name][:-500], arguments[name])
        assert torch.equal(larger[name][-500:], torch.full_like(larger[name][-500:], 7.0))


def test_constant_penalty_does_not_grow_with_the_number_of_ratings() -> None:
    """With ratings that are met exactly, an epoch pulls every user by the same factor."""
    tensors = problem(200, 4, n_users=5)
    tensors["item"].zero_()
    tensors["ratings"].zero_()
    counts = torch.bincount(tensors["users"].long(), minlength=5)
    before = tensors["user"].clone()
    arguments = {"lr": 0.01, "batch_size": 200, "user_penalty": 3.0}
    mf_sgd_epoch_(**tensors, **arguments, user_inverse_count=1 / counts.float())
    torch.testing.assert_close(tensors["user"], before * (1 - 0.01 * 2 * 3.0))


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(rows: int, device: str) -> None:
    assert_like_reference({**problem(rows, 10, device=device), "lr": 0.1, "batch_size": 256, **SMF})


def test_some_rows_of_the_data(device: str) -> None:
    tensors = problem(500, 10, device=device)
    tensors["order"] = tensors["order"][:123].to(torch.int32)
    assert_like_reference({**tensors, "lr": 0.01, "batch_size": 50})


@pytest.mark.skipif(scdr.build_info().sanitizer, reason="its shadow of the table would be real")
def test_tables_of_more_than_2_31_elements(device: str) -> None:
    """Rows at the end of a table of which nothing else is ever touched, nor in memory."""
    small = problem(100, 256, device=device)
    large = {name: tensor.clone() for name, tensor in small.items()}
    rows = 2**31 // 256 + 1
    large["user"] = torch.empty(rows + len(small["user"]), 256, device=device)
    large["user"][rows:] = small["user"]
    large["users"] += rows
    for tensors in (small, large):
        mf_sgd_epoch_(**tensors, lr=0.003, batch_size=40, **SMF)
    assert torch.equal(large["user"][rows:], small["user"])
    assert torch.equal(large["item"], small["item"])


def test_zero_vectors_and_ties(device: str) -> None:
    """sgn(0) = 0: no perturbation from a zero item vector, a zero coordinate, or a zero error."""
    tensors = problem(60, 10, device=device)
    tensors["item"][0] = 0
    tensors["item"][1:, 3] = 0
    tensors["user"][0] = 0
    tied = tensors["users"] == 0  # a zero user vector predicts 0 ...
    assert tied.any()
    tensors["ratings"][tied] = 0.0  # ... so these errors are exactly 0
    for perturbation in (SMF, SHORT, EXACT):
        arguments = {name: tensor.clone() for name, tensor in tensors.items()}
        assert_like_reference({**arguments, **perturbation, "lr": 0.01, "batch_size": 60})
        # Nothing moves a zero user vector whose every error is 0.
        assert not arguments["user"][0].any()


@pytest.mark.parametrize("biased", [False, True])
def test_like_torch_sgd_on_sparse_embeddings(biased: bool) -> None:
    """Thirty batches of torch's own optimiser, in float32."""
    tensors = problem(30 * 64 - 20, 10, n_users=50, n_items=40)
    extra = biases(tensors) if biased else {}
    tables = [tensors["user"], tensors["item"], *extra.values()]
    embeddings = [
        torch.nn.Embedding.from_pretrained(
            table.clone().reshape(len(table), -1), freeze=False, sparse=True
        )
        for table in tables
    ]
    optimiser = torch.optim.SGD([e.weight for e in embeddings], lr=0.01)
    total = 0.0
    for rows in tensors["order"].split(64):
        users, items = tensors["users"][rows].long(), tensors["items"][rows].long()
        prediction = (embeddings[0](users) * embeddings[1](items)).sum(1)
        if biased:
            prediction = prediction + embeddings[2](users)[:, 0] + embeddings[3](items)[:, 0]
        loss = (tensors["ratings"][rows] - prediction).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item()
    actual = mf_sgd_epoch_(**tensors, **extra, lr=0.01, batch_size=64)
    assert actual.item() == pytest.approx(total, rel=1e-5)
    for table, embedding in zip(tables, embeddings, strict=True):
        torch.testing.assert_close(table, embedding.weight.detach().view_as(table), **TOLERANCE)


def run_copy(tensors: dict[str, Tensor], **arguments: Any) -> list[Tensor]:
    copy = {name: tensor.clone() for name, tensor in tensors.items()}
    loss = mf_sgd_epoch_(**copy, **arguments)
    return [loss, *(copy[name] for name in WRITTEN if name in copy)]


def assert_same_bits(first: list[Tensor], second: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# Below 65,536 a second thread brings in the ratings ahead, from there on all share a batch.
@pytest.mark.parametrize("batch_size", [1, 100, 256, 3000, 70_000, 150_000])
@pytest.mark.parametrize("perturbation", [MF, SMF], ids=["mf", "smf"])
def test_same_bits_at_any_number_of_threads(
    batch_size: int, perturbation: dict[str, Any], threads: None
) -> None:
    tensors = problem(150_000, 10, n_users=2100, n_items=900)
    tensors.update(biases(tensors))
    results = []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        results.append(run_copy(tensors, lr=1e-4, batch_size=batch_size, **perturbation))
    for result in results[1:]:
        assert_same_bits(results[0], result)


def test_same_bits_again(device: str) -> None:
    tensors = problem(4000, 10, device=device)  # 12 users: a row is hit 21 times a batch
    first = run_copy(tensors, lr=1e-4, batch_size=256, **SMF)
    for _ in range(3):
        assert_same_bits(first, run_copy(tensors, lr=1e-4, batch_size=256, **SMF))


def test_two_python_threads_at_once() -> None:
    tensors = problem(100_000, 10, n_users=700, n_items=300)
    expected = run_copy(tensors, lr=1e-3, batch_size=256)
    results: list[list[Tensor]] = []
    workers = [
        threading.Thread(target=lambda: results.append(run_copy(tensors, lr=1e-3, batch_size=256)))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 2
    for result in results:
        assert_same_bits(expected, result)


def test_parameters_that_require_gradients() -> None:
    tensors = problem(100, 10)
    expected = run_copy(tensors, lr=0.01, batch_size=20)
    parameters = {**tensors, "user": torch.nn.Parameter(tensors["user"])}
    loss = mf_sgd_epoch_(**parameters, lr=0.01, batch_size=20)
    assert not loss.requires_grad
    assert torch.equal(parameters["user"].detach(), expected[1])


ALONE = """
import sys, torch
from scdr.ops import mf_sgd_epoch_
from scdr.ops.adam import AdamState
from scdr.ops.mf_sgd_epoch import SpoiltTablesError
from scdr.ops.threads import torch_threads
from scdr import build_info
cases = torch.load(sys.argv[1])
for tensors, settings, adam in cases:
    if adam:
        settings["adam"] = AdamState.zeros(user=tensors["user"], item=tensors["item"])
    tensors["loss"] = mf_sgd_epoch_(**tensors, **settings)
torch.save({"simd": build_info().simd, "tensors": [case[0] for case in cases]}, sys.argv[2])
"""


@pytest.mark.skipif(len(scdr.build_info().simd_compiled) == 1, reason="one SIMD level here")
@pytest.mark.parametrize("level", scdr.build_info().simd_compiled)
def test_every_simd_level(level: str, tmp_path: Path) -> None:
    """Levels differ only in how they round, so each is as near to the reference as any."""
    settings: dict[str, Any] = {"lr": 0.003, "batch_size": 64, **SMF}
    clipped = {**settings, "clip_norm": 20.0}
    cases = [
        (problem(300, d), dict(how), adam)
        for d in (1, 3, 5, 7, 8, 10, 16, 31, 64)
        for how, adam in ((settings, False), (clipped, True))
    ]
    torch.save(cases, tmp_path / "in.pt")
    finished = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path / "in.pt"), str(tmp_path / "out.pt")],
        env={**os.environ, "SCDR_SIMD": level},
        capture_output=True,
        text=True,
    )
    if "no such SIMD level here" in finished.stderr:
        pytest.skip(f"this processor has no {level}")
    assert finished.returncode == 0, finished.stderr
    output = torch.load(tmp_path / "out.pt")
    assert output["simd"] == level
    for (tensors, how, adam), actual in zip(cases, output["tensors"], strict=True):
        expected = in_double(tensors)
        state = AdamState.zeros(user=expected["user"], item=expected["item"]) if adam else None
        loss = reference.mf_sgd_epoch_(**expected, **how, adam=state)
        torch.testing.assert_close(actual["loss"], loss, **TOLERANCE)
        for name in ("user", "item"):
            torch.testing.assert_close(actual[name].double(), expected[name], **TOLERANCE)


def test_unknown_simd_level() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", "import scdr; scdr.build_info()"],
        env={**os.environ, "SCDR_SIMD": "neon9"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode != 0
    assert "SCDR_SIMD=neon9: no such SIMD level here; available: scalar" in finished.stderr


def with_value(tensor: Tensor, at: int, value: float) -> Tensor:
    changed = tensor.clone()
    changed[at] = value
    return changed


WRONG: dict[str, tuple[str, Any]] = {
    "user, dtype": ("user", lambda t: t.double()),
    "user, shape": ("user", lambda t: t[0]),
    "user, layout": ("user", lambda t: t.T.contiguous().T),
    "user, no factors": ("user", lambda t: t[:, :0]),
    "item, width": ("item", lambda t: t[:, :-1].contiguous()),
    "users, dtype": ("users", lambda t: t.long()),
    "users, length": ("users", lambda t: t[1:]),
    "users, negative": ("users", lambda t: with_value(t, 17, -1)),
    "users, too large": ("users", lambda t: with_value(t, 99, 12)),
    "items, too large": ("items", lambda t: with_value(t, 0, 9)),
    "items, stride": ("items", lambda t: torch.stack([t, t], 1)[:, 0]),
    "ratings, nan": ("ratings", lambda t: with_value(t, 5, float("nan"))),
    "ratings, inf": ("ratings", lambda t: with_value(t, 5, float("-inf"))),
    "ratings, dtype": ("ratings", lambda t: t.double()),
    "order, too large": ("order", lambda t: with_value(t, 3, 100)),
    "order, negative": ("order", lambda t: with_value(t.int(), 3, -5)),
    "order, dtype": ("order", lambda t: t.short()),
    "order, longer than the data": ("order", lambda t: torch.cat([t, t])),
    "lr": ("lr", lambda _: -0.1),
    "lr, nan": ("lr", lambda _: float("nan")),
    "batch_size": ("batch_size", lambda _: 0),
    "steps": ("steps", lambda _: -1),
    "step_size": ("step_size", lambda _: -0.1),
    "radius": ("radius", lambda _: -1.0),
    "inner": ("inner", lambda _: "newton"),
    "offset": ("offset", lambda _: float("inf")),
    "user_penalty": ("user_penalty", lambda _: -1.0),
    "item_penalty": ("item_penalty", lambda _: -1.0),
    "user_bias_penalty": ("user_bias_penalty", lambda _: -1.0),
    "item_bias_penalty": ("item_bias_penalty", lambda _: -1.0),
    "user_bias": ("user_bias", lambda t: t[1:]),
    "item_bias": ("item_bias", lambda t: t[:, None]),
    "user_inverse_count": ("user_inverse_count", lambda t: torch.ones(3)),
    "item_inverse_count": ("item_inverse_count", lambda t: torch.ones(9).double()),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_argument(case: str, device: str) -> None:
    name, change = WRONG[case]
    tensors = problem(100, 10, device=device)
    tensors.update(biases(tensors))
    arguments: dict[str, Any] = {**tensors, "lr": 0.01, "batch_size": 16, **SMF}
    kept = {table: arguments[table].clone() for table in WRITTEN}
    changed = change(arguments.get(name))
    arguments[name] = changed.to(device) if isinstance(changed, Tensor) else changed
    with pytest.raises(RuntimeError, match=rf"mf_sgd_epoch_: {name} "):
        mf_sgd_epoch_(**arguments)
    for table, before in kept.items():
        if table != name:
            assert torch.equal(arguments[table], before)


def test_index_error_says_value_and_row(device: str) -> None:
    tensors = problem(100, 10, device=device)
    tensors["users"][17] = -3
    tensors["users"][90] = 400
    with pytest.raises(RuntimeError, match=r"users holds -3 at row 17, outside \[0, 12\)"):
        mf_sgd_epoch_(**tensors, lr=0.01, batch_size=16)


@pytest.mark.parametrize("n_users", [64, 500], ids=["padded copy", "tables as they are"])
def test_a_result_that_is_no_float_is_found_when_no_error_meets_it(
    n_users: int, device: str
) -> None:
    """A step leaves the range of floats at the last visit to its row."""
    tensors = problem(300, 10, n_users=n_users, device=device)
    tensors["users"] = torch.arange(300, dtype=torch.int32, device=device) % 60
    row = int(tensors["order"][-1])
    tensors["users"][row] = 60  # this user occurs once
    tensors["items"][row] = 8
    tensors["user"][60] = 0
    tensors["item"][8] = 1e33
    tensors["ratings"][row] = 1e9
    tensors["items"][torch.arange(300, device=device) != row] %= 8
    tensors["user"][61:] = float("nan")  # who does not occur does not matter
    place = rf"result is not finite in batch 4, at position 299 of order \(row {row}\)"
    with pytest.raises(SpoiltTablesError, match=place):
        mf_sgd_epoch_(**tensors, lr=1e-3, batch_size=64)


@pytest.mark.parametrize("threads", [1, 2])
def test_divergence_in_a_long_epoch_with_a_second_thread(threads: int) -> None:
    tensors = problem(100_000, 10, n_users=1000, n_items=1000)
    row = int(tensors["order"][50_000])
    tensors["users"][row] = 999
    tensors["users"][tensors["order"][:50_000]] %= 999
    tensors["user"][999] = float("nan")
    with torch_threads(threads), pytest.raises(SpoiltTablesError, match=rf"50000 .*row {row}"):
        mf_sgd_epoch_(**tensors, lr=1e-4, batch_size=256)


def test_divergence_names_batch_position_and_row(device: str) -> None:
    tensors = problem(100, 10, n_users=100, device=device)
    tensors["users"] = torch.arange(100, dtype=torch.int32, device=device)
    row = int(tensors["order"][37])
    tensors["user"][row, 4] = float("inf")
    before = tensors["user"].clone()
    place = rf"batch 2, at position 37 of order \(row {row}\): the tables are spoilt"
    with pytest.raises(RuntimeError, match=place):
        mf_sgd_epoch_(**tensors, lr=1e-3, batch_size=16)
    changed = (tensors["user"] != before).any(1)
    visited = torch.zeros(100, dtype=torch.bool, device=device)
    visited[tensors["order"][:32]] = True  # the two batches before
    assert torch.equal(changed, visited)


def test_opcheck(device: str) -> None:
    tensors = problem(100, 10, device=device)
    options: dict[str, Any] = {"lr": 0.01, "batch_size": 16}
    for extra in ({}, {**biases(tensors), **penalties(tensors), **SMF}):
        torch.library.opcheck(
            torch.ops.scdr.mf_sgd_epoch_.default, tuple(tensors.values()), {**options, **extra}
        )


def test_inside_torch_compile() -> None:
    tensors = problem(100, 10)
    expected = run_copy(tensors, lr=0.01, batch_size=16)
    compiled = torch.compile(mf_sgd_epoch_, fullgraph=True, backend="aot_eager")
    loss = compiled(**tensors, lr=0.01, batch_size=16)
    assert_same_bits(expected, [loss, tensors["user"], tensors["item"]])


def test_schema_function_and_reference_take_the_same_arguments() -> None:
    schema = torch.ops.scdr.mf_sgd_epoch_.default._schema
    whole = inspect.signature(mf_sgd_epoch_)
    computing = [p for name, p in whole.parameters.items() if name != "progress"]
    assert inspect.signature(reference.mf_sgd_epoch_) == whole.replace(parameters=computing)
    function = {p.name: p for p in computing if p.name != "adam"}
    moments = {f"{table}_{moment}" for table in WRITTEN for moment in ("first", "second")}
    flat = {argument.name: argument for argument in schema.arguments[len(function) :]}
    assert flat.keys() == moments | {"adam_step", "beta1", "beta2", "eps"}
    for name, argument in flat.items():
        assert argument.kwarg_only and argument.default_value == getattr(AdamState(), name, None)
        written = argument.alias_info is not None and argument.alias_info.is_write
        assert written == (name in moments | {"adam_step"})
    assert [argument.name for argument in schema.arguments[: len(function)]] == list(function)
    for argument in schema.arguments[: len(function)]:
        parameter = function[argument.name]
        assert argument.kwarg_only == (parameter.kind is inspect.Parameter.KEYWORD_ONLY)
        if argument.has_default_value():
            assert argument.default_value == parameter.default
        else:
            assert parameter.default is inspect.Parameter.empty
        written = argument.alias_info is not None and argument.alias_info.is_write
        assert written == (argument.name in WRITTEN)

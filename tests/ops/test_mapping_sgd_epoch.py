"""mapping_sgd_epoch_ against the reference in float64 and against torch's own optimisers."""

from __future__ import annotations

import copy
import inspect
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scdr
from scdr.ops import mapping_sgd_epoch_, reference, sharp_mapping_loss
from scdr.ops.adam import AdamState
from scdr.ops.mf_sgd_epoch import SpoiltTablesError

# Float32 sums of up to some hundred products, over at most 40 batches of small steps.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
NONE: dict[str, Any] = {"steps": 0, "radius": 1.0}
# A sign of the slope near zero may differ between float32 and float64, and then that coordinate of
# that row moves by 2 step_size: so steps are small enough for the whole table to agree.
SHARP: dict[str, Any] = {"steps": 5, "radius": 1e-4}
FREE: dict[str, Any] = {"steps": 2, "radius": 1.0, "step_size": 1e-4}  # not stopped by the ball


def mlp(d_source: int, hidden: int, d_target: int, *, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(d_source, hidden, bias=bias), nn.Tanh(), nn.Linear(hidden, d_target, bias=bias)
    )


def problem(
    n: int,
    d_source: int = 10,
    hidden: int = 50,
    d_target: int = 10,
    *,
    n_users: int = 12,
    n_items: int = 9,
    bias: bool = True,
    device: str = "cpu",
) -> dict[str, Any]:
    """Few users, so that a batch holds many duplicates."""
    random = torch.Generator().manual_seed(n)
    tensors: dict[str, Any] = {
        "user": torch.randn(n_users, d_source, generator=random),
        "item": torch.randn(n_items, d_target, generator=random) * d_target**-0.5,
        "users": torch.randint(n_users, (n,), generator=random, dtype=torch.int32),
        "items": torch.randint(n_items, (n,), generator=random, dtype=torch.int32),
        "ratings": torch.randn(n, generator=random),
        "order": torch.randperm(n, generator=random),
        "mapping": mlp(d_source, hidden, d_target, bias=bias),
    }
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def adam_of(arguments: dict[str, Any], **settings: float) -> AdamState:
    first, _, second = arguments["mapping"]
    return AdamState.zeros(
        user=arguments["user"] if arguments.get("train_user", True) else None,
        w1=first.weight.detach(),
        b1=first.bias if first.bias is None else first.bias.detach(),
        w2=second.weight.detach(),
        b2=second.bias if second.bias is None else second.bias.detach(),
        **settings,
    )


def in_double(arguments: dict[str, Any]) -> dict[str, Any]:
    def convert(value: object) -> object:
        if isinstance(value, nn.Module):
            return copy.deepcopy(value).cpu().double()
        if isinstance(value, AdamState):
            moments = (
                {k: v.cpu().double() for k, v in t.items()} for t in (value.first, value.second)
            )
            first, second = moments
            return replace(value, first=first, second=second)
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.cpu().double()
        return value.cpu() if isinstance(value, Tensor) else value

    return {name: convert(value) for name, value in arguments.items()}


def trained(arguments: dict[str, Any]) -> dict[str, Tensor]:
    named = {"user": arguments["user"], **dict(arguments["mapping"].named_parameters())}
    if adam := arguments.get("adam"):
        named |= {f"first {name}": moment for name, moment in adam.first.items()}
        named |= {f"second {name}": moment for name, moment in adam.second.items()}
    return {name: tensor.detach().clone() for name, tensor in named.items()}


def assert_like_reference(arguments: dict[str, Any], **tolerance: float) -> None:
    expected = in_double(arguments)
    expected_loss = reference.mapping_sgd_epoch_(**expected)
    loss = mapping_sgd_epoch_(**arguments)
    assert loss.dtype == torch.float64 and loss.shape == ()
    tolerance = {**TOLERANCE, **tolerance}
    torch.testing.assert_close(loss.cpu(), expected_loss, **tolerance)
    actual = trained(arguments)
    for name, tensor in trained(expected).items():
        torch.testing.assert_close(actual[name].cpu().double(), tensor, **tolerance, msg=name)
    if "adam" in arguments:
        assert arguments["adam"].step == expected["adam"].step


@pytest.mark.parametrize("perturbation", [NONE, SHARP, FREE], ids=["none", "sharp", "free"])
@pytest.mark.parametrize("batch_size", [1, 7, 256, 10_000])
@pytest.mark.parametrize("widths", [(10, 50, 10), (1, 1, 1), (33, 7, 6), (16, 64, 17)])
@pytest.mark.parametrize("bias", [True, False], ids=["biases", "plain"])
def test_sgd_like_reference(
    widths: tuple[int, int, int],
    batch_size: int,
    bias: bool,
    perturbation: dict[str, Any],
    device: str,
) -> None:
    n = 40 if batch_size == 1 else 600
    arguments = problem(n, *widths, bias=bias, device=device)
    assert_like_reference({**arguments, **perturbation, "lr": 0.05, "batch_size": batch_size})


@pytest.mark.parametrize("widths", [(257, 256, 257), (1, 256, 2), (256, 1, 255)])
def test_widest(widths: tuple[int, int, int], device: str) -> None:
    arguments = problem(150, *widths, device=device)
    assert_like_reference({**arguments, **SHARP, "lr": 0.01, "batch_size": 70})


@pytest.mark.parametrize("n", [0, 1])
def test_few_rows(n: int, device: str) -> None:
    assert_like_reference({**problem(n, device=device), **SHARP, "lr": 0.1, "batch_size": 256})


@pytest.mark.parametrize("bias", [True, False], ids=["biases", "plain"])
@pytest.mark.parametrize("clip_norm", [None, 0.05, 100.0])
@pytest.mark.parametrize("train_user", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_clipping_penalty_and_frozen_users(
    optimizer: str, train_user: bool, clip_norm: float | None, bias: bool, device: str
) -> None:
    arguments = problem(700, bias=bias, device=device)
    arguments |= {"clip_norm": clip_norm, "train_user": train_user, "weight_decay": 0.3}
    if optimizer == "adam":
        arguments["adam"] = adam_of(arguments)
    before = arguments["user"].clone()
    # Adam divides by the root of the second moment: where that is small, rounding of the gradient
    # is magnified, by lr = 0.001 at most a step.
    assert_like_reference({**arguments, **SHARP, "lr": 0.001, "batch_size": 64}, atol=3e-5)
    assert torch.equal(before, arguments["user"]) is not train_user


def test_some_rows_of_the_data(device: str) -> None:
    arguments = problem(500, device=device)
    arguments["order"] = arguments["order"][:123].to(torch.int32)
    assert_like_reference({**arguments, **SHARP, "lr": 0.01, "batch_size": 50})


def test_moments_go_on_from_epoch_to_epoch(device: str) -> None:
    arguments = problem(200, device=device)
    arguments["adam"] = adam_of(arguments, beta1=0.8, beta2=0.95, eps=1e-6)
    for _ in range(3):
        assert_like_reference({**arguments, **SHARP, "lr": 1e-3, "batch_size": 30})
    assert arguments["adam"].step == 21


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_like_torch_optimisers(optimizer: str) -> None:
    """Thirty batches of torch's own loss, clipping and optimisers, in float64."""
    arguments = problem(30 * 64 - 20, n_users=50)
    exact = in_double(arguments)
    mapping, user = (
        exact["mapping"],
        nn.Embedding.from_pretrained(exact["user"], freeze=False, sparse=optimizer == "adam"),
    )
    decayed = {"params": list(mapping.parameters()), "weight_decay": 2 * 0.02}
    if optimizer == "adam":
        optimisers = [
            torch.optim.Adam([decayed], lr=0.003),
            torch.optim.SparseAdam([user.weight], lr=0.003),
        ]
        arguments["adam"] = adam_of(arguments)
    else:
        optimisers = [torch.optim.SGD([decayed, {"params": [user.weight]}], lr=0.003)]
    total, clipped = 0.0, 0
    for rows in exact["order"].split(64):
        loss = sharp_mapping_loss(
            user(exact["users"][rows].long()),
            exact["item"][exact["items"][rows].long()],
            exact["ratings"][rows],
            mapping,
            **SHARP,
        )
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.mean().backward()
        if optimizer == "sgd":  # clip_grad_norm_ takes no sparse gradients
            norm = nn.utils.clip_grad_norm_([*mapping.parameters(), user.weight], 0.9)
            clipped += int(norm > 0.9)
        for optimiser in optimisers:
            optimiser.step()
        total += loss.sum().item()
    options: dict[str, Any] = {"lr": 0.003, "batch_size": 64, "weight_decay": 0.02, **SHARP}
    if optimizer == "sgd":
        options["clip_norm"] = 0.9
        assert 0 < clipped < 30
    actual = mapping_sgd_epoch_(**arguments, **options)
    assert actual.item() == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(arguments["user"].double(), user.weight.detach(), **TOLERANCE)
    for mine, theirs in zip(arguments["mapping"].parameters(), mapping.parameters(), strict=True):
        torch.testing.assert_close(mine.detach().double(), theirs.detach(), **TOLERANCE)


def run_copy(arguments: dict[str, Any], **options: Any) -> list[Tensor]:
    own = copy.deepcopy(arguments)
    loss = mapping_sgd_epoch_(**own, **options)
    return [loss, *trained(own).values()]


WIDE: dict[str, Any] = {"steps": 5, "radius": 2.0, "lr": 0.01, "clip_norm": 1.0}


@pytest.mark.parametrize("batch_size", [256, 5000, 20_000])
def test_same_bits_at_any_number_of_threads(batch_size: int, threads: None) -> None:
    arguments = problem(20_000, n_users=700, n_items=300)
    arguments["adam"] = adam_of(arguments)
    results = []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        results.append(run_copy(arguments, batch_size=batch_size, **WIDE))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_same_bits_again(device: str) -> None:
    arguments = problem(5000, device=device)
    first, second = (run_copy(arguments, batch_size=256, **WIDE) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_large_perturbation_raises_the_loss_as_the_reference_says(device: str) -> None:
    arguments = problem(1000, device=device)
    exact = in_double(arguments)
    options: dict[str, Any] = {"lr": 0.0, "batch_size": 1000, "steps": 5}
    losses = []
    for radius in (0.0, 0.5, 3.0):
        loss = mapping_sgd_epoch_(**arguments, **options, radius=radius).item()
        expected = reference.mapping_sgd_epoch_(**exact, **options, radius=radius).item()
        assert loss == pytest.approx(expected, rel=1e-3)  # some signs near zero differ
        losses.append(loss)
    assert losses[0] < losses[1] < losses[2]


ALONE = """
import sys, torch
from scdr import build_info
from scdr.ops import mapping_sgd_epoch_
cases = torch.load(sys.argv[1], weights_only=False)
losses = [mapping_sgd_epoch_(**case) for case in cases]
torch.save({"simd": build_info().simd, "losses": losses, "cases": cases}, sys.argv[2])
"""


@pytest.mark.skipif(len(scdr.build_info().simd_compiled) == 1, reason="one SIMD level here")
@pytest.mark.parametrize("level", scdr.build_info().simd_compiled)
def test_every_simd_level(level: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {**SHARP, "lr": 0.001, "batch_size": 100, "clip_norm": 0.5}
    cases = []
    for widths in ((10, 50, 10), (3, 5, 7), (17, 31, 2)):
        case = {**problem(300, *widths), **options}
        case["adam"] = adam_of(case)
        cases.append(case)
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
    output = torch.load(tmp_path / "out.pt", weights_only=False)
    assert output["simd"] == level
    for case, actual, loss in zip(cases, output["cases"], output["losses"], strict=True):
        exact = in_double(case)
        torch.testing.assert_close(loss, reference.mapping_sgd_epoch_(**exact), **TOLERANCE)
        mine = trained(actual)
        for name, tensor in trained(exact).items():
            torch.testing.assert_close(mine[name].double(), tensor, **TOLERANCE, msg=name)


def with_value(tensor: Tensor, at: Any, value: float) -> Tensor:
    changed = tensor.clone()
    changed[at] = value
    return changed


def with_weight(mapping: nn.Sequential, layer: int, weight: Tensor) -> nn.Sequential:
    mapping = copy.deepcopy(mapping)
    mapping[layer].weight = nn.Parameter(weight)  # type: ignore[union-attr]
    return mapping


NAN = float("nan")
WRONG: dict[str, tuple[str, Any]] = {
    "user, dtype": ("user", lambda t: t.double()),
    "user, shape": ("user", lambda t: t[0]),
    "user, layout": ("user", lambda t: t.T.contiguous().T),
    "user, nan": ("user", lambda t: with_value(t, (3, 4), NAN)),
    "user, too wide": ("user", lambda t: torch.zeros(12, 258)),
    "item, inf": ("item", lambda t: with_value(t, (0, 0), float("inf"))),
    "item, no factors": ("item", lambda t: t[:, :0]),
    "users, dtype": ("users", lambda t: t.long()),
    "users, negative": ("users", lambda t: with_value(t, 17, -1)),
    "items, too large": ("items", lambda t: with_value(t, 0, 9)),
    "items, length": ("items", lambda t: t[1:]),
    "ratings, nan": ("ratings", lambda t: with_value(t, 5, NAN)),
    "order, too large": ("order", lambda t: with_value(t, 3, 100)),
    "order, dtype": ("order", lambda t: t.float()),
    "order, longer": ("order", lambda t: torch.cat([t, t])),
    "lr": ("lr", lambda _: -0.1),
    "batch_size": ("batch_size", lambda _: 0),
    "steps": ("steps", lambda _: -1),
    "step_size": ("step_size", lambda _: NAN),
    "radius": ("radius", lambda _: -1.0),
    "weight_decay": ("weight_decay", lambda _: -1.0),
    "clip_norm": ("clip_norm", lambda _: 0.0),
    "mapping, kind": ("mapping", lambda m: nn.Linear(10, 10)),
    "mapping, width": ("w1 of mapping", lambda m: mlp(9, 50, 10)),
    "mapping, dtype": ("w1 of mapping", lambda m: mlp(10, 50, 10).double()),
    "mapping, nan": ("w2 of mapping", lambda m: with_weight(m, 2, torch.full((10, 50), NAN))),
    "adam, beta1": ("adam.beta1", lambda a: replace(a, beta1=1.0)),
    "adam, eps": ("adam.eps", lambda a: replace(a, eps=0.0)),
    "adam, none of w1": ('adam.first["w1"]', lambda a: replace(a, first={**a.first, "w1": None})),
    "adam, shape": (
        'adam.second["user"]',
        lambda a: replace(a, second={**a.second, "user": torch.zeros(3, 10)}),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_argument_is_named_before_any_write(case: str, device: str) -> None:
    name, change = WRONG[case]
    arguments: dict[str, Any] = {**problem(100, device=device), **SHARP, "lr": 0.1}
    arguments |= {"batch_size": 16, "adam": adam_of(arguments)}
    before = trained(arguments)
    key = next(key for key in ("adam", "mapping", case.split(",")[0]) if key in case)
    changed = change(arguments.get(key))
    wrong = {**arguments, key: changed.to(device) if isinstance(changed, Tensor) else changed}
    with pytest.raises(ValueError) as caught:
        mapping_sgd_epoch_(**wrong)
    assert str(caught.value).startswith(name.removesuffix(" of mapping") + " ")
    after = trained(arguments)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_index_error_says_value_and_row(device: str) -> None:
    arguments = problem(100, device=device)
    arguments["users"][17] = -3
    with pytest.raises(ValueError, match=r"^users holds -3 at row 17, outside \[0, 12\)"):
        mapping_sgd_epoch_(**arguments, **SHARP, lr=0.01, batch_size=16)


def test_an_error_that_is_not_finite_names_batch_position_and_row(device: str) -> None:
    arguments = problem(100, n_items=100, device=device)
    arguments["items"] = torch.arange(100, dtype=torch.int32, device=device)
    row = int(arguments["order"][37])
    arguments["item"][row] = 3e38
    with torch.no_grad():
        arguments["mapping"][2].bias.fill_(10.0)
    place = rf"error is not finite in batch 2, at position 37 of order \(row {row}\): the tables"
    with pytest.raises(SpoiltTablesError, match=place):
        mapping_sgd_epoch_(**arguments, **NONE, lr=1e-3, batch_size=16)


def test_a_gradient_or_a_parameter_that_is_not_finite_is_found(device: str) -> None:
    arguments = problem(100, device=device)
    large = {**copy.deepcopy(arguments), "ratings": torch.full((100,), 1e30, device=device)}
    with pytest.raises(SpoiltTablesError, match="is not finite in batch 0"):
        mapping_sgd_epoch_(**large, **NONE, lr=1e20, batch_size=16)
    before = trained(arguments)
    arguments["user"] *= 1e25
    arguments["item"] *= 1e25
    with pytest.raises(SpoiltTablesError, match="is not finite in batch 0"):
        mapping_sgd_epoch_(**arguments, **NONE, lr=1e-3, batch_size=16)
    after = trained(arguments)
    assert torch.equal(after["0.weight"], before["0.weight"])  # that batch is not applied


def test_stopped_by_progress_counts_the_batches_that_were_applied() -> None:
    class EnoughError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert total == 400_000
        raise EnoughError(done)

    arguments = problem(1000)
    arguments["order"] = torch.arange(1000).repeat(400)
    for name in ("users", "items", "ratings"):
        arguments[name] = arguments[name].repeat(400)
    arguments["adam"] = adam_of(arguments)
    with pytest.raises(EnoughError) as caught:
        mapping_sgd_epoch_(
            **arguments, steps=300, radius=1e-4, lr=1e-3, batch_size=256, progress=stop
        )
    assert arguments["adam"].step * 256 == caught.value.args[0]


def op_arguments(device: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    arguments = problem(100, device=device)
    weights = [p.detach() for p in arguments["mapping"].parameters()]
    rows = [arguments[name] for name in ("users", "items", "ratings", "order")]
    return (arguments["user"], arguments["item"], *weights, *rows), adam_of(arguments).__dict__


def test_opcheck(device: str) -> None:
    tensors, adam = op_arguments(device)
    options: dict[str, Any] = {**SHARP, "lr": 0.01, "batch_size": 16}
    op = torch.ops.scdr.mapping_sgd_epoch_.default
    torch.library.opcheck(op, tensors, options)
    moments = {
        f"{name}_{which}": moment
        for which in ("first", "second")
        for name, moment in adam[which].items()
    }
    # The step is on the CPU whatever the device.
    options |= {"clip_norm": 1.0, "adam_step": torch.tensor(3), **moments}
    torch.library.opcheck(op, tensors, options)


def test_inside_torch_compile() -> None:
    arguments = problem(100)
    options: dict[str, Any] = {**WIDE, "batch_size": 16}
    expected = run_copy(arguments, **options)
    compiled = torch.compile(mapping_sgd_epoch_, fullgraph=True, backend="aot_eager")
    loss = compiled(**arguments, **options)
    for mine, theirs in zip([loss, *trained(arguments).values()], expected, strict=True):
        assert torch.equal(mine, theirs)


def test_function_and_reference_take_the_same_arguments() -> None:
    whole = inspect.signature(mapping_sgd_epoch_)
    computing = [p for name, p in whole.parameters.items() if name != "progress"]
    assert inspect.signature(reference.mapping_sgd_epoch_) == whole.replace(parameters=computing)

"""`python -m scdr.train`: the run folder, that a run repeats, and what bad input leads to."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors

from scdr.methods import FactorPredictor
from scdr.train import main

FAST = [
    *("--method", "scdr"),
    *("--pretrain.epochs", "3", "--pretrain.sharp-epochs", "1", "--mapping.epochs", "2"),
]


def write_pair(folder: Path, users: int = 40, items: int = 12) -> tuple[str, str]:
    """Two small dense domains with the same users; ids with leading zeros."""
    generator = np.random.default_rng(0)
    paths = []
    for name in ("source", "target"):
        lines = [
            f"{user:04d},{name[0]}{item},{generator.integers(1, 6)},{user + item}"
            for user in range(users)
            for item in range(items)
            if generator.random() < 0.9
        ]
        path = folder / f"{name}.csv"
        path.write_text("\n".join(lines) + "\n")
        paths.append(str(path))
    return paths[0], paths[1]


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    source, target = write_pair(tmp_path)
    return ["--source", source, "--target", target, *FAST]


@pytest.fixture
def finished(pair: list[str], tmp_path: Path) -> Path:
    out = tmp_path / "run"
    assert main([*pair, "--out", str(out), "--save-predictions"]) == 0
    return out


def test_the_run_folder_is_complete(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.toml",
        "data.md",
        "model.safetensors",
        "predictions.parquet",
        "progress.jsonl",
        "report.json",
        "report.png",
        "split.json",
    }
    assert (finished / "report.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((finished / "report.json").read_text())
    assert report["schema"] == 2
    assert report["method"] == "scdr"
    data, split = report["data"], json.loads((finished / "split.json").read_text())
    assert data["source"]["users"] == 40
    assert data["overlap_users"] == data["train_users"] + data["validation_users"] + 20 == 40
    assert data["test_users"] == split["test_users"] == 20
    assert set(split["sha256"]) == {"train", "validation", "test"}
    for metrics in (report["test"], report["validation"], *report["controls"].values()):
        low, high = metrics["mae_ci95"]
        assert 0 < low < metrics["mae"] < high
        assert metrics["mae"] <= metrics["rmse"]
    assert (
        sum(part["ratings"] for part in report["slices"]["item"].values()) == (data["test_ratings"])
    )
    assert set(report["controls"]) == {
        "global_mean",
        "item_mean",
        "bias_transfer",
        "bias_transfer_weighted",
    }
    seconds = report["seconds"]
    assert seconds["total"] >= sum(seconds[k] for k in ("read", "pretrain", "mapping", "evaluate"))
    stages = [json.loads(line) for line in (finished / "progress.jsonl").open()]
    assert [(line["stage"], line["epoch"]) for line in stages if line["stage"] == "mapping"] == [
        ("mapping", 1),
        ("mapping", 2),
    ]
    assert sum(line["stage"] == "pretrain source" for line in stages) == 3


def test_predictions_are_those_that_the_report_judges(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    table = pl.read_parquet(finished / "predictions.parquet")
    assert table.columns == ["user", "item", "rating", "prediction"]
    assert table.schema["user"] == table.schema["item"] == pl.String
    assert len(table) == report["data"]["test_ratings"]
    assert table["user"].str.len_chars().unique().to_list() == [4]
    error = (table["prediction"] - table["rating"]).to_numpy().astype(np.float64)
    assert np.abs(error).mean() == pytest.approx(report["test"]["mae"], rel=1e-6)
    assert np.sqrt((error**2).mean()) == pytest.approx(report["test"]["rmse"], rel=1e-6)

    saved = FactorPredictor.load(finished / "model.safetensors")
    users = np.searchsorted(saved.user_ids, table["user"].to_numpy().astype(object))
    items = np.searchsorted(saved.item_ids, table["item"].to_numpy().astype(object))
    again = saved.predictor.predict(users, items).clip(*saved.metadata["rating_range"])
    np.testing.assert_array_equal(again, table["prediction"].to_numpy())


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_the_config_of_a_run_repeats_it_to_the_bit(
    preset: str, pair: list[str], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    changed = ["--preset", preset, "--pretrain.final-learning-rate", "None", "--beta", "0.4"]
    assert main([*pair, *changed, "--threads", "1", "--out", str(first), "--save-predictions"]) == 0
    config = str(first / "config.toml")
    assert main(["--config", config, "--threads", "2", "--out", str(second)]) == 0
    for name in ("model.safetensors", "split.json", "predictions.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    kept, again = (tomllib.loads((run / "config.toml").read_text()) for run in (first, second))
    assert kept | {"threads": 2} == again
    assert kept["pretrain"]["final_learning_rate"] == "none"
    one, two = (json.loads((run / "report.json").read_text()) for run in (first, second))
    for key in ("test", "validation", "controls", "data"):
        assert one[key] == two[key]


@pytest.mark.parametrize("method", ["scdr_b", "scdr"])
def test_test_users_target_ratings_are_read_by_the_evaluation_alone(
    method: str, tmp_path: Path
) -> None:
    source, target = write_pair(tmp_path)
    options = ["--source", source, "--method", method, "--save-predictions"]
    first, second, other = tmp_path / "first", tmp_path / "second", tmp_path / "other.csv"
    assert main([*options, "--target", target, "--out", str(first)]) == 0
    before = pl.read_parquet(first / "predictions.parquet")
    test_users = set(before["user"])
    rows = [line.split(",") for line in Path(target).read_text().splitlines()]
    other.write_text(
        "".join(
            f"{user},{item},{6 - int(rating) if user in test_users else rating},{time}\n"
            for user, item, rating, time in rows
        )
    )
    assert main([*options, "--target", str(other), "--out", str(second)]) == 0
    after = pl.read_parquet(second / "predictions.parquet")
    assert (before["rating"] != after["rating"]).any()
    assert before.drop("rating").equals(after.drop("rating"))


def test_the_default_method_reports_a_distribution(tmp_path: Path) -> None:
    source, target = write_pair(tmp_path)
    reports, tables = {}, {}
    for optimise in ("both", "mae", "rmse"):
        out = tmp_path / optimise
        options = ["--source", source, "--target", target, "--out", str(out)]
        chosen = [] if optimise == "both" else ["--optimise", optimise]
        assert main([*options, *chosen, "--save-predictions"]) == 0
        reports[optimise] = json.loads((out / "report.json").read_text())
        tables[optimise] = pl.read_parquet(out / "predictions.parquet")
        saved = FactorPredictor.load(out / "model.safetensors")
        assert saved.predictor.optimise == optimise
    assert reports["both"]["method"] == "scdr_b"
    for optimise, report in reports.items():
        assert report["distribution"]["optimise"] == optimise
        assert report["distribution"]["points"] == reports["both"]["distribution"]["points"]
        assert report["distribution"]["points"][optimise] == report["test"]
    table = tables["mae"]
    assert set(table["prediction"].unique()) <= {1.0, 2.0, 3.0, 4.0, 5.0}  # medians are levels
    assert (table["deviation"] > 0).all()
    within = (tables["rmse"]["prediction"] - table["rating"]).abs() <= table["deviation"]
    spread = reports["mae"]["distribution"]["within_one_deviation"]
    assert within.mean() == pytest.approx(spread["inside"])


def test_options_override_the_config_file(finished: Path, tmp_path: Path) -> None:
    config, out = str(finished / "config.toml"), tmp_path / "other"
    assert main(["--config", config, "--beta", "0.25", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["beta"] == 0.25
    assert report["config"]["pretrain"]["epochs"] == 3


@pytest.mark.parametrize("method", ["tgt", "emcdr", "task_mapping", "scdr_minus"])
def test_every_method_runs(method: str, tmp_path: Path) -> None:
    source, target = write_pair(tmp_path)
    out = tmp_path / "run"
    options = ["--source", source, "--target", target, "--method", method]
    assert main([*options, "--pretrain.epochs", "2", "--out", str(out)]) == 0
    assert json.loads((out / "report.json").read_text())["method"] == method


@pytest.mark.parametrize("method", ["emcdr", "scdr"])
@pytest.mark.parametrize("backbone", ["ngcf", "lightgcn"])
def test_a_run_with_a_graph_backbone_is_repeated_by_its_config(
    method: str, backbone: str, tmp_path: Path
) -> None:
    source, target = write_pair(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    options = ["--source", source, "--target", target, "--method", method, "--backbone", backbone]
    few = ["--pretrain.graph.epochs", "3", "--pretrain.graph.sharp-epochs", "2"]
    assert main([*options, *few, "--out", str(first)]) == 0
    report = json.loads((first / "report.json").read_text())
    assert report["config"]["pretrain"]["backbone"] == backbone
    again = ["--config", str(first / "config.toml"), "--threads", "1"]
    assert main([*again, "--out", str(second)]) == 0
    model = "model.safetensors"
    loaded = [FactorPredictor.load(folder / model).predictor for folder in (first, second)]
    assert (loaded[0].source_vectors == loaded[1].source_vectors).all()
    width = {"lightgcn": 11, "ngcf": 41}[backbone]
    assert loaded[0].source_vectors.shape[1] == width


def test_synthetic_data_report_the_gap_they_close(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--synthetic", "movies-music", "--scale", "0.01", *FAST, "--out", str(out)]
    assert main(options) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["data"]["source"] == {"users": 1240, "items": 501, "ratings": 17000}
    planted = report["planted"]
    assert 0.5 < planted["best_rmse"] < planted["bias_transfer_rmse"]
    assert planted["gap_closed"] == pytest.approx(
        (planted["bias_transfer_rmse"] - report["test"]["rmse"])
        / (planted["bias_transfer_rmse"] - planted["best_rmse"])
    )


def edit(path: str, change: Callable[[list[str]], list[str]]) -> None:
    lines = Path(path).read_text().splitlines()
    Path(path).write_text("\n".join(change(lines)) + "\n")


def truncated(path: str) -> None:
    data = gzip.compress(Path(path).read_bytes())
    Path(path).write_bytes(data[: len(data) // 2])


BAD_FILES: dict[str, tuple[Callable[[str], object], list[str]]] = {
    "missing": (lambda path: Path(path).unlink(), ["source.csv"]),
    "empty": (lambda path: Path(path).write_text(""), ["source.csv", "empty"]),
    "unknown format": (
        lambda path: Path(path).write_bytes(bytes(range(256)) * 20),
        ["source.csv"],
    ),
    "truncated gzip": (truncated, ["source.csv", "ends early"]),
    "rating not a number": (
        lambda path: edit(path, lambda lines: [*lines[:6], "0001,s1,good,3", *lines[7:]][:40]),
        ["source.csv:7"],
    ),
    "rating not finite": (
        lambda path: edit(path, lambda lines: [*lines[:6], "0001,s1,inf,3", *lines[7:]][:40]),
        ["source.csv:7"],
    ),
    "id column missing": (
        lambda path: edit(path, lambda lines: ["user,rating,timestamp", *lines]),
        ["source.csv", "item"],
    ),
    "no overlap": (
        lambda path: edit(path, lambda lines: ["x" + line for line in lines]),
        ["no overlap users"],
    ),
    "all removed by 5-core": (lambda path: edit(path, lambda lines: lines[:4]), ["5-core"]),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_line_and_no_folder(
    kind: str, pair: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil, expected = BAD_FILES[kind]
    spoil(pair[1])
    before = sorted(tmp_path.iterdir())
    assert main([*pair, "--out", str(tmp_path / "run")]) == 2
    line = error_line(capfd)
    assert all(part in line for part in expected), line
    assert sorted(tmp_path.iterdir()) == before


def error_line(capfd: pytest.CaptureFixture[str]) -> str:
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("scdr: error:")
    return lines[0]


BAD_OPTIONS = {
    "beta 0": (["--beta", "0"], "beta"),
    "beta 1": (["--beta", "1"], "beta"),
    "beta nan": (["--beta", "nan"], "beta"),
    "too few for beta": (["--beta", "0.001"], "too few overlap users"),
    "seed of 80 bits": (["--seed", str(2**80)], "seed"),
    "too many threads": (["--threads", str(2**40)], "threads"),
    "config without a name": (["--config="], "config"),
    "unknown method": (["--method", "magic"], "magic"),
    "unknown preset": (["--preset", "best"], "best"),
    "unknown format": (["--source-format", "xml"], "xml"),
    "unknown column role": (["--source-columns", "person=0"], "--source-columns"),
    "negative learning rate": (["--pretrain.learning-rate", "-1"], "learning_rate"),
    "one domain": (["--target", "None"], "--target is missing"),
    "files and synthetic": (["--synthetic", "planted"], "--synthetic"),
    "config missing": (["--config", "nowhere.toml"], "nowhere.toml"),
    "no GPU": (["--device", "cuda"], "no usable GPU"),
}


@pytest.mark.parametrize("kind", BAD_OPTIONS)
def test_a_bad_option_is_one_line_and_no_folder(
    kind: str, pair: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from scdr.device import why_no_cuda

    options, expected = BAD_OPTIONS[kind]
    if kind == "no GPU" and why_no_cuda() is None:
        pytest.skip("a GPU is usable here")
    before = sorted(tmp_path.iterdir())
    assert main([*pair, *options, "--out", str(tmp_path / "run")]) == 2
    assert expected in error_line(capfd)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("colour = 1\n", "colour"),
        ("[mapping]\nradios = 1.0\n", "radios"),
        ("beta = 2.0\n", "beta"),
        ('beta = "0.5"\n', "beta"),
        ("strict = 1\n", "strict"),
        ("scale = 0.5\n", "scale"),
        ('beta = "half"\n', "beta"),
        ("beta = \n", "TOML"),
        ('method = ["scdr"]\n', "method"),
        ("[preset]\nname = 1\n", "preset"),
    ],
)
def test_a_bad_config_names_file_and_key(
    text: str, expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(text)
    assert main(["--config", str(config), "--out", str(tmp_path / "run")]) == 2
    line = error_line(capfd)
    assert expected in line
    assert "mine.toml" in line or "scale" in line
    assert list(tmp_path.iterdir()) == [config]


def test_a_config_may_start_with_a_byte_order_mark(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "notepad.toml"
    config.write_text("beta = 2.0\n", encoding="utf-8-sig")
    assert main(["--config", str(config)]) == 2
    assert "beta is 2.0" in error_line(capfd)


def test_an_existing_folder_is_refused_unless_overwrite(
    finished: Path, pair: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "report.json").read_bytes()
    assert main([*pair, "--out", str(finished)]) == 2
    assert "--overwrite" in error_line(capfd)
    assert (finished / "report.json").read_bytes() == before
    assert main([*pair, "--out", str(finished), "--overwrite", "--seed", "1"]) == 0
    assert json.loads((finished / "report.json").read_text())["seed"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "source.csv", "target.csv"]


def test_overwrite_spares_what_is_not_a_run(
    pair: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    thesis = tmp_path / "papers" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    assert main([*pair, "--out", str(thesis.parent), "--overwrite"]) == 2
    assert "not a run folder" in error_line(capfd)
    assert thesis.read_text() == "years of work"


def test_divergence_leaves_nothing(
    pair: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    options = ["--pretrain.learning-rate", "90", "--out", str(tmp_path / "deep" / "run")]
    assert main([*pair, *options]) == 2
    assert "diverged" in error_line(capfd)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_stops_cleanly(number: int, status: int, tmp_path: Path) -> None:
    source, target = write_pair(tmp_path)
    command = [sys.executable, "-m", "scdr.train", "--source", source, "--target", target]
    endless = ["--method", "scdr", "--pretrain.epochs", "1000000", "--out", str(tmp_path / "run")]
    process = subprocess.Popen([*command, *endless], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".run.partial/progress.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.csv", "target.csv"]


def test_model_files_hold_no_code(finished: Path, tmp_path: Path) -> None:
    with safetensors.safe_open(finished / "model.safetensors", framework="np") as file:
        assert set(file.metadata()) == {"scdr"}
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((finished / "model.safetensors").read_bytes()[:100])
    from scdr.errors import InputError

    with pytest.raises(InputError, match=r"damaged\.safetensors"):
        FactorPredictor.load(damaged)

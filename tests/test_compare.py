"""`python -m scdr.compare`: its folder, that it repeats and goes on, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from scdr.compare import main
from scdr.methods import CONTROLS

EVERY = ["tgt", "scdr", *CONTROLS]
TOML = """
methods = ["tgt", "scdr"]
betas = [0.5, 0.3]
seeds = [0, 1]
pairs = ["small={source}:{target}"]
[hyper.tgt]
pretrain = {{ epochs = 3 }}
[hyper.scdr]
pretrain = {{ epochs = 3 }}
mapping = {{ epochs = 2 }}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCDR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A comparison of 24 runs on two small dense domains with the same users."""
    generator = np.random.default_rng(0)
    paths = {}
    for name in ("source", "target"):
        lines = [
            f"{user:04d},{name[0]}{item},{generator.integers(1, 6)},{user + item}"
            for user in range(40)
            for item in range(12)
            if generator.random() < 0.9
        ]
        paths[name] = tmp_path / f"{name}.csv"
        paths[name].write_text("\n".join(lines) + "\n")
    path = tmp_path / "compare.toml"
    path.write_text(TOML.format(**paths))
    return str(path)


def results(folder: Path) -> pl.DataFrame:
    return pl.read_csv(folder / "results.csv", schema_overrides={"error": pl.String})


def comparable(folder: Path) -> dict[str, bytes]:
    """What must be equal to the byte: all but times."""
    files = {
        name: (folder / name).read_bytes()
        for name in ("user_errors.parquet", "significance.csv", "tables.md", "tables.tex")
    }
    return files | {"results.csv": results(folder).drop("seconds").write_csv().encode()}


def test_the_folder_is_complete(config: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["--config", config, "--jobs", "1", "--out", str(out), "--published"]) == 0
    assert {path.name for path in out.iterdir()} == {
        ".scdr-compare.lock",
        "comparison.png",
        "config.toml",
        "data.md",
        "report.json",
        "results.csv",
        "results.parquet",
        "runs",
        "significance.csv",
        "significance.parquet",
        "tables.md",
        "tables.tex",
        "user_errors.parquet",
    }
    table = results(out)
    assert table.columns[:5] == ["pair", "beta", "seed", "preset", "method"]
    assert {"mae", "rmse", "user_mae", "user_rmse", "n_test", "seconds"} < set(table.columns)
    assert table.select("beta", "seed", "method").rows() == [
        (beta, seed, method) for beta in (0.5, 0.3) for seed in (0, 1) for method in EVERY
    ]
    assert table["config_hash"].n_unique() == len(table)
    assert pl.read_parquet(out / "results.parquet").equals(table)

    errors = pl.read_parquet(out / "user_errors.parquet")
    one = errors.filter(beta=0.5, seed=1, method="scdr")
    row = table.filter(beta=0.5, seed=1, method="scdr").row(0, named=True)
    assert len(one) == row["n_test_users"] == 20
    assert one["n_ratings"].sum() == row["n_test"]
    assert one["mae"].mean() == pytest.approx(row["user_mae"])
    assert (one["mae"] * one["n_ratings"]).sum() / row["n_test"] == pytest.approx(row["mae"])

    text = (out / "tables.md").read_text()
    for title in ("Table II. small", "Table III.", "Table IV.", "Published: Table VII,"):
        assert f"## {title}" in text, title
    maes = table.filter(beta=0.3, method="tgt")["mae"]
    assert f"{maes.mean():.4f} ± {maes.std():.4f}" in text
    assert json.loads((out / "report.json").read_text())["pairs"][0]["overlap_users"] == 40


def test_its_errors_are_those_of_train(config: str, tmp_path: Path) -> None:
    from scdr.train import main as train

    out = tmp_path / "out"
    split = ["--betas", "0.5", "--seeds", "1"]
    assert main(["--config", config, *split, "--jobs", "1", "--out", str(out)]) == 0
    files = ["--source", str(tmp_path / "source.csv"), "--target", str(tmp_path / "target.csv")]
    hyper = ["--pretrain.epochs", "3", "--mapping.epochs", "2", "--beta", "0.5", "--seed", "1"]
    assert train([*files, *hyper, "--method", "scdr", "--out", str(tmp_path / "run")]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    for row in results(out).iter_rows(named=True):
        if row["method"] == "scdr":
            assert row["mae"] == report["test"]["mae"]
            assert [row["rmse_low"], row["rmse_high"]] == report["test"]["rmse_ci95"]
        elif row["method"] in CONTROLS:
            assert row["rmse"] == report["controls"][row["method"]]["rmse"]


def start(config: str, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scdr.compare", "--config", config, "--out", str(out)]
    return subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)


def wait_for_runs(process: subprocess.Popen[str], out: Path, count: int) -> None:
    deadline = time.monotonic() + 90
    while len(list(out.glob("runs/*.json"))) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_after_a_kill_it_goes_on_to_the_same_bytes_with_other_jobs_and_another_cache(
    config: str, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(config, killed, "--jobs", "2")
    wait_for_runs(process, killed, 5)
    process.kill()
    process.communicate()
    done = {path: path.read_bytes() for path in killed.glob("runs/*.json")}
    assert 5 <= len(done) < 24
    assert not (killed / "results.csv").exists()
    for entry in own_cache.glob("*.safetensors"):
        entry.write_bytes(entry.read_bytes()[:-1])
    assert main(["--config", config, "--jobs", "1", "--out", str(killed)]) == 0
    assert {path: path.read_bytes() for path in done} == done  # nothing ran twice

    monkeypatch.setenv("SCDR_CACHE", str(tmp_path / "cold"))
    assert main(["--config", config, "--jobs", "1", "--out", str(whole)]) == 0
    assert comparable(killed) == comparable(whole)
    assert (killed / "comparison.png").read_bytes() == (whole / "comparison.png").read_bytes()


def test_ctrl_c_keeps_what_is_finished(config: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(config, out, "--jobs", "2")
    wait_for_runs(process, out, 1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    kept = len(list(out.glob("runs/*.json")))
    assert f"interrupted; {kept} of 24 runs are kept" in errors.splitlines()[-1]


def test_a_second_call_runs_only_what_is_missing(
    config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["--config", config, "--jobs", "1", "--out", str(out)]
    assert main([*command, "--seeds", "0"]) == 0
    first = {path: path.stat().st_mtime_ns for path in out.glob("runs/*")}
    cut, edited = sorted(out.glob("runs/*.parquet"))[:2]
    cut.write_bytes(cut.read_bytes()[:-1])
    edited = edited.with_suffix(".json")
    edited.write_text(edited.read_text().replace('"rmse": 1.', '"rmse": 0.'))
    capfd.readouterr()
    assert main(command) == 0
    errors = capfd.readouterr().err
    for path in (cut.with_suffix(".json"), edited):
        assert f"damaged result {path} (" in errors
    second = {path: path.stat().st_mtime_ns for path in out.glob("runs/*")}
    assert len(second) == 2 * len(first)
    again = [path for path in first if second[path] != first[path]]
    assert sorted(again) == sorted(
        path.with_suffix(suffix) for path in (cut, edited) for suffix in (".json", ".parquet")
    )
    assert len(results(out)) == 24


def test_data_that_change_are_run_again(config: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["--config", config, "--jobs", "1", "--out", str(out), "--seeds", "0"]
    assert main(command) == 0
    before = results(out)
    source = tmp_path / "source.csv"
    source.write_text(source.read_text().replace("0001,s1,", "0001,s99,", 1))
    assert main(command) == 0
    after = results(out)
    assert not set(before["config_hash"]) & set(after["config_hash"])


def test_a_run_that_fails_stands_in_its_place(
    config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = Path(config).read_text()
    tgt = "[hyper.tgt]\npretrain = { epochs = 3"
    Path(config).write_text(text.replace(tgt, f"{tgt}, learning_rate = 1e6"))
    out = tmp_path / "out"
    command = ["--config", config, "--jobs", "1", "--out", str(out)]
    assert main(command) == 0
    table = results(out)
    failed = table.filter(pl.col("error").is_not_null())
    assert set(failed["method"]) == {"tgt"} and len(failed) == 4
    assert failed["mae"].is_null().all() and failed["error"].str.contains("diverged").all()
    assert table.filter(pl.col("method") != "tgt")["mae"].is_not_null().all()
    assert "| TGT (MF) | failed | failed | failed | failed |" in (out / "tables.md").read_text()
    printed = capfd.readouterr().out
    assert "failed: small, beta 0.5, seed 0, tgt" in printed
    assert "20 runs, 4 failed" in printed
    kept = {path: path.stat().st_mtime_ns for path in out.glob("runs/*")}
    assert main(command) == 0  # it would diverge just so again
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*")} == kept


def test_a_search_is_recorded(config: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    chosen = ["--betas", "0.5", "--seeds", "0", "--tune", "2"]
    assert main(["--config", config, *chosen, "--jobs", "1", "--out", str(out)]) == 0
    searches = json.loads((out / "tuning.json").read_text())
    assert [search["method"] for search in searches] == ["tgt", "scdr"]
    for search in searches:
        assert len(search["trials"]) == 2
        assert search["rmse"] == min(rmse for _, rmse in search["trials"])


def test_a_dry_run_lists_what_there_is_to_do(
    config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["--config", config, "--methods", "tgt", "--jobs", "1", "--out", str(out)]
    assert main([*command, "--dry-run"]) == 0
    assert not out.exists()
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "missing   small, beta 0.5, seed 0, tgt"
    assert "20 of 20 runs to do" in lines
    assert "All of it, 1 job" in lines[-2] and " 20 " in lines[-2]
    assert main([*command, "--seeds", "0"]) == 0
    capfd.readouterr()
    assert main([*command, "--dry-run"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("finished") and "10 of 20 runs to do" in lines
    assert main([*command, "--seeds", "0", "--dry-run"]) == 0
    assert "Estimate" not in capfd.readouterr().out  # there is nothing left to do


def test_the_cache_can_be_cleared(
    config: str, tmp_path: Path, own_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["--config", config, "--seeds", "0", "--jobs", "1", "--out", str(out)]) == 0
    # SCDR's source, and for each beta the target of both methods: source factors know no beta.
    assert len(list(own_cache.glob("*.safetensors"))) == 1 + 2 * 2
    capfd.readouterr()
    assert main(["--clear-cache"]) == 0
    assert capfd.readouterr().out.startswith("removed 5 entries")
    assert list(own_cache.glob("*.safetensors")) == []


def test_two_comparisons_do_not_write_into_one_folder(
    config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from scdr.experiments.store import comparison_folder

    out = tmp_path / "out"
    with comparison_folder(out):
        assert main(["--config", config, "--out", str(out)]) == 2
    assert "another comparison" in error_line(capfd)


def test_a_folder_with_other_files_is_left_alone(
    config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", config, "--out", str(tmp_path)]) == 2
    assert "not those of a comparison" in error_line(capfd)
    assert not (tmp_path / "runs").exists()


BAD_OPTIONS = {
    "no name": (["--pairs", "a.csv:b.csv"], "is not a pair"),
    "one file": (["--pairs", "x=a.csv"], "two files"),
    "three files": (["--pairs", "x=a.csv:b.csv:c.csv"], "TOML"),
    "missing file": (["--pairs", "x=nowhere.csv:b.csv"], "pair x"),
    "unknown shape": (["--pairs", "x=synthetic:toys"], "synthetic"),
    "bad scale": (["--pairs", "x=synthetic:movies-music@big"], "'big' is not a scale"),
    "scale too large": (["--pairs", "x=synthetic:movies-music@2"], "scale"),
    "name twice": (["--pairs", "x=a:b", "x=c:d"], "pairs"),
    "beta 1": (["--betas", "1"], "betas"),
    "beta twice": (["--betas", "0.5", "0.5"], "betas"),
    "no seeds": (["--seeds"], "seeds"),
    "unknown method": (["--methods", "magic"], "magic"),
    "a control proposed": (["--proposed", "item_mean"], "item_mean"),
    "unknown proposed": (["--proposed", "magic"], "magic"),
    "unknown preset": (["--preset", "best"], "best"),
    "no jobs": (["--jobs", "0"], "jobs"),
    "tune without validation": (["--preset", "paper", "--tune", "3"], "--tune"),
    "backbone twice": (["--backbone", "mf", "mf"], "backbone"),
    "no backbone to choose": (["--methods", "scdr_b", "--backbone", "ngcf"], "SCDR-B"),
    "config missing": (["--config", "nowhere.toml"], "nowhere.toml"),
}


@pytest.mark.parametrize("kind", BAD_OPTIONS)
def test_a_bad_option_is_one_line_and_no_folder(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options, expected = BAD_OPTIONS[kind]
    assert main([*options, "--out", str(tmp_path / "out")]) == 2
    assert expected in error_line(capfd)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("colour = 1\n", "colour"),
        ("betas = 0.5\n", "betas"),
        ('seeds = ["0"]\n', "seeds"),
        ('[[pairs]]\nsource = "a"\n', "pairs"),
        ('[[pairs]]\nname = "x"\nsauce = "a"\n', "sauce"),
        ("[hyper.magic]\n", "magic"),
        ("[hyper.scdr.mapping]\nradios = 1.0\n", "radios"),
        ("[hyper.scdr.mapping]\nradius = -1.0\n", "radius"),
    ],
)
def test_a_bad_config_names_the_key(
    text: str, expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(text)
    assert main(["--config", str(config), "--out", str(tmp_path / "out")]) == 2
    assert expected in error_line(capfd)


def error_line(capfd: pytest.CaptureFixture[str]) -> str:
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("scdr: error:")
    return lines[0]


def test_the_config_of_a_folder_repeats_it(config: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["--config", config, "--seeds", "0", "--jobs", "1", "--out", str(first)]) == 0
    again = str(first / "config.toml")
    assert main(["--config", again, "--jobs", "1", "--out", str(second)]) == 0
    assert comparable(first) == comparable(second)
    assert (first / "config.toml").read_bytes() == (second / "config.toml").read_bytes()


def test_several_backbones_are_table_vi(config: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    chosen = ["--methods", "emcdr", "scdr_b", "--backbone", "mf", "lightgcn", "--seeds", "0"]
    assert main(["--config", config, *chosen, "--jobs", "1", "--out", str(out)]) == 0
    runs = results(out).select("method", "backbone").unique(maintain_order=True).rows()
    assert runs[:3] == [("emcdr", "mf"), ("emcdr", "lightgcn"), ("scdr_b", None)]
    tables = (out / "tables.md").read_text()
    assert "Table VI (backbones)" in tables and "Table II." not in tables
    assert "| EMCDR, LightGCN |" in tables

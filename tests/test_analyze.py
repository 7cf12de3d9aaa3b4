"""`python -m scdr.analyze`: its folder, that a second call measures nothing, and bad input."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from scdr import analyze, compare, train
from scdr.recipes import study

ROBUST = ["pair", "beta", "seed", "method", "k", "rho", "attack", "eps", "mae"]
FLAT = ["pair", "beta", "seed", "method", "k", "rho"]
FLAT += ["lipschitz_mean", "lipschitz_max", "spectral_bound"]
FAST = ["--pretrain.epochs", "3"]


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCDR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two small dense domains with the same users."""
    folder, generator = tmp_path_factory.mktemp("pair"), np.random.default_rng(0)
    paths = []
    for name in ("source", "target"):
        lines = [
            f"{user:04d},{name[0]}{item},{generator.integers(1, 6)},{user + item}"
            for user in range(40)
            for item in range(12)
            if generator.random() < 0.9
        ]
        paths.append(folder / f"{name}.csv")
        paths[-1].write_text("\n".join(lines) + "\n")
    return str(paths[0]), str(paths[1])


@pytest.fixture(scope="module")
def sweep(pair: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of three recipes on 2 seeds, and a folder for them."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    return [
        *("--recipe", "table5", "fig6", "fig2", "--betas", "0.5"),
        *("--pairs", f"a <b>={pair[0]}:{pair[1]}", "--seeds", "0", "1", "--jobs", "1"),
        *("--preset", "default", "--sweep-steps", "1", "3", "--sweep-radii", "1"),
        *("--grid", "5", "--rows", "50", "--out", str(out)),
    ]


@pytest.fixture(scope="module")
def finished(sweep: list[str]) -> Path:
    assert analyze.main(sweep) == 0
    return Path(sweep[-1])


def trained(pair: tuple[str, str], out: Path, *more: str) -> Path:
    files = ["--source", pair[0], "--target", pair[1]]
    assert train.main([*files, *FAST, "--out", str(out), *more]) == 0
    return out


@pytest.fixture(scope="module")
def run(pair: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(pair, tmp_path_factory.mktemp("run") / "run", "--method", "scdr")


def test_a_recipe_leaves_tables_figures_and_a_report(finished: Path) -> None:
    for recipe in ("table5", "fig2", "fig6"):
        assert (finished / "figures" / f"{recipe}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (finished / "figures" / f"{recipe}.svg").read_bytes()[:2000]
    columns = {path.stem: pl.read_csv(path).columns for path in (finished / "tables").glob("*.csv")}
    assert columns["table5"] == columns["table5_relative"] == ROBUST
    assert columns["fig6"] == FLAT
    assert columns["fig2"] == ["method", "zeta", "gamma", "mae"]
    table = pl.read_csv(finished / "tables" / "table5.csv")
    assert len(table) == 2 * 2 * 5  # seeds, k, eps
    assert set(table["k"]) == {1, 3}
    assert len(pl.read_csv(finished / "tables" / "fig2.csv")) == 2 * 5 * 5


def test_the_report_needs_nothing_from_outside(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", markup)
    assert "<b>" not in markup  # the pair's name is text
    assert "a &lt;b&gt;" in markup
    assert "Plotly" in page  # landscapes can be rotated
    assert len(page) < 7e6


def test_a_second_call_measures_nothing_and_writes_the_same(
    finished: Path, sweep: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def files() -> dict[str, bytes]:
        found = [path for path in finished.rglob("*.*") if path.is_file()]
        return {str(path): path.read_bytes() for path in found}

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("measured again")

    before = files()
    monkeypatch.setattr(study, "in_processes", fail)
    assert analyze.main(sweep) == 0
    assert files() == before


def test_a_damaged_measurement_is_made_again(finished: Path, sweep: list[str]) -> None:
    before = (finished / "tables" / "table5.csv").read_bytes()
    damaged = sorted((finished / "runs").glob("*.json"))[0]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-20])
    assert analyze.main(sweep) == 0
    assert damaged.read_bytes() == content
    assert (finished / "tables" / "table5.csv").read_bytes() == before


def test_runs_are_analysed_as_they_are(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    recipes = ["--recipe", "fig5", "ratings"]
    arguments = [str(run), *recipes, "--rows", "50", "--grid", "5", "--jobs", "1"]
    assert analyze.main([*arguments, "--out", str(out)]) == 0
    table = pl.read_csv(out / "tables" / "fig5.csv")
    assert table["eps"].to_list() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert table["mae"].min() == table["mae"][0]
    assert set(table["method"]) == {"scdr"}
    page = (out / "report.html").read_text(encoding="utf-8")
    report = json.loads((run / "report.json").read_text())
    assert f"{report['test']['mae']:.4f}" in page
    assert "Bias transfer" in page


def test_the_report_of_a_comparison(pair: tuple[str, str], tmp_path: Path) -> None:
    folder, out = tmp_path / "comparison", tmp_path / "out"
    arguments = ["--pairs", f"p={pair[0]}:{pair[1]}", "--methods", "scdr", "--betas", "0.5"]
    arguments += ["--seeds", "0", "1", "--jobs", "1", "--out", str(folder)]
    assert compare.main(arguments) == 0
    assert analyze.main([str(folder), "--out", str(out)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("ahead of the best control", "Table II", "Table III", "Environment"):
        assert text in page
    assert "Plotly" not in page.partition('id="surfaces"')[0]
    (folder / "results.parquet").unlink()
    assert analyze.main([str(folder), "--out", str(out)]) == 2


def edited(run: Path, copy: Path, **values: object) -> Path:
    shutil.copytree(run, copy)
    report = json.loads((copy / "report.json").read_text())
    (copy / "report.json").write_text(json.dumps(report | values))
    return copy


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.startswith("scdr: error: ")
    assert text.count("\n") == 1
    return text


def test_bad_run_folders_are_one_line_each(
    run: Path, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: str) -> str:
        capsys.readouterr()
        out = tmp_path / "out"
        assert analyze.main([*arguments, "--jobs", "1", "--out", str(out)]) == 2
        assert not out.exists()
        return one_line(capsys)

    assert "no such run folder" in fails(str(tmp_path / "none"))
    for name in ("report.json", "model.safetensors"):
        copy = tmp_path / f"no-{name}"
        shutil.copytree(run, copy)
        (copy / name).unlink()
        line = fails(str(run), str(copy))
        assert f"incomplete: it has no {name}" in line
        assert str(copy) in line
    assert "another version of scdr: its report has schema 99" in fails(
        str(edited(run, tmp_path / "newer", schema=99))
    )
    tgt = trained(pair, tmp_path / "tgt", "--method", "tgt")
    assert "the method tgt has no mapping" in fails(str(tgt))
    assert "given twice" in fails(str(run), str(run))


def test_data_that_have_changed_are_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    split = json.loads((copy / "split.json").read_text())
    (copy / "split.json").write_text(json.dumps(split | {"test_ratings": 1}))
    capsys.readouterr()
    arguments = [str(copy), "--recipe", "fig5", "--jobs", "1", "--out", str(tmp_path / "out")]
    assert analyze.main(arguments) == 2
    assert "the data are not those that the run was trained on" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to analyse"),
        (["--recipe", "fig9"], "unknown recipe 'fig9'"),
        (["--recipe", "fig4", "--grid", "10"], "grid is 10"),
        (["--recipe", "fig5", "--pairs", "x"], "is not a pair"),
        (["somewhere", "--betas", "0.5"], "run folders and data at once"),
    ],
)
def test_bad_options_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze.main(arguments) == 2
    assert message in one_line(capsys)

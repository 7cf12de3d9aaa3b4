"""`python -m scdr.prepare`: what it writes, that training takes it, and how it fails."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scdr.data import planted, read_domain
from scdr.prepare import main


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The two domains of a small planted pair, as CSV."""
    folder = tmp_path_factory.mktemp("dumps")
    domains = planted(
        source_users=200, overlap_users=80, target_only_users=60, source_items=60, target_items=50,
        source_ratings_per_user=12, target_ratings_per_user=12,
    ).domains  # fmt: skip
    paths = []
    for name, domain in (("books", domains.source), ("music", domains.target)):
        rows = zip(
            domain.user_ids[domain.users],
            domain.item_ids[domain.items],
            domain.ratings,
            strict=True,
        )
        path = folder / f"{name}.csv"
        path.write_text("".join(f"{user},{item},{rating}\n" for user, item, rating in rows))
        paths.append(str(path))
    return paths


def error_line(capfd: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capfd.readouterr().err.splitlines() if "scdr: error" in line]
    assert len(lines) == 1
    return lines[0]


def test_prepared_domains_train_as_their_dumps_do(dumps: list[str], tmp_path: Path) -> None:
    out = tmp_path / "prepared"
    assert main([*dumps, "--out", str(out)]) == 0
    names = ["books.parquet", "music.parquet"]
    assert sorted(path.name for path in out.iterdir()) == [*names, "report.json"]
    report = json.loads((out / "report.json").read_text())
    source, target = (read_domain(dump)[0] for dump in dumps)
    shared = set(source.user_ids) & set(target.user_ids)
    assert report["overlaps"] == [{"domains": ["books", "music"], "users": len(shared)}]
    assert [domain["ratings"] for domain in report["domains"]] == [len(source), len(target)]

    from scdr.train import main as train

    tests = []
    options = ["--factors.sweeps", "4"]
    for run, pair in (("first", dumps), ("second", [str(out / name) for name in names])):
        where = ["--source", pair[0], "--target", pair[1], "--out", str(tmp_path / run)]
        assert train([*where, *options]) == 0
        tests.append(json.loads((tmp_path / run / "report.json").read_text())["test"])
    assert tests[0] == tests[1]


def test_two_dumps_of_one_name_are_refused(
    dumps: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([dumps[0], dumps[0], "--out", str(tmp_path / "out")]) == 2
    assert "would both be books.parquet" in error_line(capfd)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--core", "-1"], "core is -1"),
        (["--core", "1000"], "1000-core removes all"),
        (["--columns", "user=x"], "no column 'x'"),
        (["--format", "csvv"], "unknown format"),
    ],
)
def test_bad_options_leave_nothing(
    options: list[str],
    expected: str,
    dumps: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main([*dumps, "--out", str(tmp_path / "out"), *options]) == 2
    assert expected in error_line(capfd)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_leaves_nothing(dumps: list[str], tmp_path: Path) -> None:
    def no_file_above_4_kib() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        [sys.executable, "-m", "scdr.prepare", *dumps, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        preexec_fn=no_file_above_4_kib,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("scdr: error: the domain can't be written")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("rows_in_memory", "begun"), [(1 << 24, ".*"), (0, ".*/database*")])
def test_an_interrupt_leaves_nothing(rows_in_memory: int, begun: str, tmp_path: Path) -> None:
    dump = tmp_path / "dump.csv"
    with dump.open("w") as file:
        file.writelines(
            f"user{row % 50_021},item{row % 30_011},3,{row}\n" for row in range(500_000)
        )
    command = (
        "import sys; from scdr.data import preparing; from scdr.prepare import main; "
        f"preparing.ROWS_IN_MEMORY = {rows_in_memory}; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command, str(dump), "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(f".out.partial/{begun}")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == [dump]

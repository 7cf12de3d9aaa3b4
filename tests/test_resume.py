"""`python -m scdr.train --resume`: what a run leaves when it is ended, and what comes of it.

SCDR_KILLS=N kills N times for each of several methods, at random moments from the start on; without
it a run is killed twice.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdr.checkpoints import Checkpoints
from scdr.train import main

KILLS = int(os.environ.get("SCDR_KILLS", "0"))
SHORT = [
    *("--method", "scdr", "--save-predictions", "--checkpoint-every", "0"),
    *("--pretrain.epochs", "6", "--pretrain.sharp-epochs", "2", "--mapping.epochs", "3"),
]
SAME = ("model.safetensors", "predictions.parquet", "split.json", "config.toml", "data.md")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    paths = {}
    for name in ("source", "target"):
        rows = [
            f"{user},{item},{generator.integers(1, 6)},{user + item}\n"
            for user in range(40)
            for item in range(12)
            if generator.random() < 0.9
        ]
        paths[name] = folder / f"{name}.csv"
        paths[name].write_text("".join(rows))
    return ["--source", str(paths["source"]), "--target", str(paths["target"])]


@pytest.fixture(scope="module")
def whole(pair: list[str]) -> Path:
    out = Path(pair[1]).parent / "whole"
    assert main([*pair, *SHORT, "--out", str(out)]) == 0
    return out


@contextmanager
def stopped_after(saves: int, by: BaseException) -> Iterator[None]:
    """Raise something once a run has kept so many states."""
    save, done = Checkpoints.save, [0]

    def counting(self: Checkpoints, stage: str, state: Any) -> None:
        save(self, stage, state)
        done[0] += 1
        if done[0] == saves:
            raise by

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", counting)
        yield


@pytest.fixture
def interrupted(pair: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "run"
    with stopped_after(8, KeyboardInterrupt()):
        assert main([*pair, *SHORT, "--out", str(out)]) == 130
    go_on = f"python -m scdr.train --resume --out {out} goes on from the last checkpoint"
    assert capfd.readouterr().err.splitlines()[-1] == f"scdr: interrupted; {go_on}"
    assert not out.exists()
    return out


def assert_same(found: Path, whole: Path) -> None:
    assert {path.name for path in found.iterdir()} == {path.name for path in whole.iterdir()}
    for name in SAME:
        assert (found / name).read_bytes() == (whole / name).read_bytes(), name
    reports = [json.loads((folder / "report.json").read_text()) for folder in (found, whole)]
    for report in reports:
        del report["seconds"], report["environment"]
    assert reports[0] == reports[1]
    logs = [(folder / "progress.jsonl").read_text().splitlines() for folder in (found, whole)]
    epochs = [
        sorted(json.dumps({k: v for k, v in json.loads(line).items() if k != "seconds"})
               for line in log)
        for log in logs
    ]  # fmt: skip
    assert epochs[0] == epochs[1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def error_line(capfd: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    return line


def test_it_goes_on_and_leaves_nothing_else(interrupted: Path, whole: Path, tmp_path: Path) -> None:
    assert ".run.partial" in names(tmp_path)
    assert main(["--resume", "--out", str(interrupted)]) == 0
    assert_same(interrupted, whole)
    assert names(tmp_path) == ["run"]
    written = (interrupted / "report.json").stat().st_mtime_ns
    assert main(["--resume", "--out", str(interrupted)]) == 0  # is finished
    assert (interrupted / "report.json").stat().st_mtime_ns == written


def test_the_same_command_may_always_say_resume(
    pair: list[str], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [*pair, *SHORT, "--resume", "--out", str(out)]
    for _ in range(2):
        with stopped_after(5, KeyboardInterrupt()):
            assert main(command) == 130
    assert main(command) == 0
    assert_same(out, whole)


def test_without_a_folder_the_last_run_goes_on(
    pair: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in ("1", "0"):
        with stopped_after(8, KeyboardInterrupt()):
            assert main([*pair, *SHORT, "--seed", seed]) == 130
        time.sleep(1.1)  # names tell seconds apart
    assert main(["--resume"]) == 0
    (finished,) = Path("runs").glob("*-scdr")
    assert_same(finished, whole)


def test_an_interrupted_run_is_neither_lost_nor_mixed(
    interrupted: Path, pair: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(interrupted)]
    kept = {path: path.read_bytes() for path in interrupted.parent.rglob("*.safetensors")}
    assert kept
    refused = [
        ([*pair, *SHORT, *out], "an interrupted run is there.*--resume.*--overwrite"),
        (["--resume", *out, "--beta", "0.3"], "beta is 0.3, but 0.5"),
        (["--resume", *out, "--method", "tgt"], "method is 'tgt', but 'scdr'"),
        (["--resume", *out, "--mapping.radius", "0.2"], "mapping.radius is 0.2, but 0.1"),
    ]
    for command, expected in refused:
        assert main(command) == 2
        line = error_line(capfd)
        for part in expected.split(".*"):
            assert part in line
    source = Path(pair[1])
    text = source.read_text()
    source.write_text(text.replace(",3,", ",4,"))
    assert main(["--resume", *out]) == 2
    source.write_text(text)
    assert "of other data" in error_line(capfd)
    assert {path: path.read_bytes() for path in kept} == kept
    assert main([*pair, *SHORT, *out, "--overwrite"]) == 0
    assert names(interrupted.parent) == ["run"]


def test_nothing_to_go_on_with(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--resume", "--out", str(tmp_path / "typo")]) == 2
    assert "no interrupted run" in error_line(capfd)
    assert not names(tmp_path)


def test_what_a_run_was_started_with_is_checked(
    interrupted: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (path,) = interrupted.parent.rglob("started.json")
    path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1'))
    assert main(["--resume", "--out", str(interrupted)]) == 2
    line = error_line(capfd)
    assert str(path) in line and "checksum" in line


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The system refuses to write more to any file, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_one_line_and_loses_nothing(
    interrupted: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = {path: path.read_bytes() for path in interrupted.parent.rglob("*.safetensors")}
    capfd.readouterr()
    with files_up_to(3000):
        assert main(["--resume", "--out", str(interrupted)]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert sum("no checkpoint could be written" in line for line in lines) == 1
    assert lines[-1].startswith("scdr: error: the run folder can't be written: File too large")
    assert "--resume" in lines[-1]
    assert not interrupted.exists()
    assert names(interrupted.with_name(".run.partial")) == ["checkpoints"]
    assert {path: path.read_bytes() for path in kept} == kept
    assert main(["--resume", "--out", str(interrupted)]) == 0
    assert_same(interrupted, whole)


def test_a_disk_that_is_full_from_the_start_leaves_nothing(
    pair: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with files_up_to(600):
        assert main([*pair, *SHORT, "--out", str(tmp_path / "run")]) == 2
    assert "can't be written" in error_line(capfd)
    assert not names(tmp_path)


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scdr.train", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_a_checkpoint(process: subprocess.Popen[str], folder: Path) -> None:
    """Until one is written that was not there, or the process ends."""
    before = kept_in(folder)
    deadline = time.monotonic() + 300
    while kept_in(folder) == before and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kept_in(folder: Path) -> set[tuple[str, int]]:
    """Stages with a checkpoint, and their inodes, which change with each."""
    found = folder.glob(".run.partial/checkpoints/[!.]*.safetensors")
    with suppress(FileNotFoundError):  # the run ends and removes them
        return {(path.name, path.stat().st_ino) for path in found}
    return set()


def test_a_second_run_into_the_folder_is_refused_at_once(
    pair: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [*pair, *SHORT, "--pretrain.epochs", "1000000", "--out", str(tmp_path / "run")]
    process = start([*command, "--checkpoint-every", "0.2"])
    wait_for_a_checkpoint(process, tmp_path)
    assert process.poll() is None
    for more in ([], ["--overwrite"], ["--resume"]):
        assert main([*command, *more]) == 2
        assert "another run is writing to this folder" in error_line(capfd)
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert errors.splitlines()[-1].startswith("scdr: terminated; python -m scdr.train --resume")


RUNS: dict[str, list[str]] = {
    "scdr": ["--pretrain.epochs", "60", "--mapping.epochs", "20"],
    "scdr with Adam": ["--pretrain.optimizer", "adam", "--mapping.optimizer", "sgd"],
    "emcdr": ["--preset", "paper"],
    "clcdr": [],
    "sscdr": [],
    "scdr_b": [],
}


@pytest.mark.parametrize("kind", RUNS if KILLS else ["scdr"])
def test_kill_9_at_random_moments(kind: str, tmp_path: Path) -> None:
    run = ["--method", kind.split()[0], *RUNS[kind], "--synthetic", "movies-music"]
    run += ["--scale", "0.05" if KILLS else "0.01", "--save-predictions"]
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert main([*run, "--out", str(whole)]) == 0
    command = [*run, "--out", str(out), "--resume", "--checkpoint-every", "0"]
    rng, kills, finished, stages = random.Random(kind), 0, 0, list[int]()
    while kills < (KILLS or 2):
        process = start(command)
        if KILLS and rng.random() < 0.3:  # while it imports, reads, or trains already
            time.sleep(rng.uniform(0, 6))
        else:
            wait_for_a_checkpoint(process, tmp_path)
            time.sleep(rng.uniform(0, 2 if KILLS else 0.3))
        process.kill()
        _, errors = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), errors
        assert "error" not in errors and "damaged" not in errors
        if out.exists():
            assert_same(out, whole)
            shutil.rmtree(out)
            finished += 1
        if process.returncode:
            kills += 1
            stages.append(len(kept_in(tmp_path)))
    assert main(command) == 0
    assert_same(out, whole)
    assert names(tmp_path) == ["run", "whole"]
    print(f"\n{kind}: {kills} kills, finished {1 + finished} times, stages kept {stages}")

"""Run folders: whole or not at all, and never one in place of another that nobody gave up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scdr.errors import InputError
from scdr.folder import REPORT, choose_folder, whole_folder


def write(folder: Path, text: str, *, overwrite: bool = False) -> Path:
    with whole_folder(folder, overwrite=overwrite) as writing:
        (writing.partial / REPORT).write_text(text)
    return writing.folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_run_into_one_folder_is_refused(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "run") as first:
        with pytest.raises(InputError, match="another run is writing to this folder"):
            write(tmp_path / "run", "second")
        (first.partial / REPORT).write_text("first")
    assert names(tmp_path) == ["run"]
    assert (tmp_path / "run" / REPORT).read_text() == "first"


def test_of_runs_without_a_name_the_second_gets_a_number(tmp_path: Path) -> None:
    with (
        whole_folder(tmp_path / "now", numbered=True),
        whole_folder(tmp_path / "now", numbered=True) as second,
    ):
        pass
    with whole_folder(tmp_path / "now", numbered=True) as third:
        pass
    assert (second.folder.name, third.folder.name) == ("now-2", "now-3")
    assert names(tmp_path) == ["now", "now-2", "now-3"]


def test_a_killed_run_holds_no_lock_and_what_it_left_goes(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from scdr.folder import whole_folder\n"
        "with whole_folder(Path(sys.argv[1])) as writing:\n"
        "    (writing.partial / 'half').write_text('')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "run"]).returncode == -9
    assert names(tmp_path) == [".run.lock", ".run.partial"]
    assert write(tmp_path / "run", "whole") == tmp_path / "run"
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == [REPORT]


def test_what_another_program_puts_there_is_left(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "run") as writing:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis").write_text("years of work")
    assert writing.folder.name == "run-2"
    assert names(tmp_path / "run") == ["thesis"]


def test_a_replacement_that_was_cut_off_is_undone(tmp_path: Path) -> None:
    write(tmp_path / "run", "old")
    (tmp_path / "run").rename(tmp_path / ".run.replaced")
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "run", overwrite=True):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["run"]
    assert (tmp_path / "run" / REPORT).read_text() == "old"


def test_overwrite_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "run", "old")
    assert write(tmp_path / "run", "new", overwrite=True) == tmp_path / "run"
    assert names(tmp_path) == ["run"]
    assert (tmp_path / "run" / REPORT).read_text() == "new"


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "a" / "b" / "run"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", [".", "deep/.."])
def test_a_folder_without_a_name_of_its_own(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    folder = choose_folder(out, name="scdr", overwrite=True)
    assert write(folder, "run", overwrite=True) == here
    assert names(tmp_path) == ["here"]


def test_a_file_is_no_parent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be created"):
        write(tmp_path / "file" / "deep" / "run", "run")
    assert names(tmp_path) == ["file"]

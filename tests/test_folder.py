"""Run folders: whole or not at all, and never one in place of another that nobody gave up."""

from __future__ import annotations

from pathlib import Path

import pytest

from scdr.errors import InputError
from scdr.folder import REPORT, choose_folder, whole_folder


def write(folder: Path, text: str, *, overwrite: bool = False) -> Path:
    with whole_folder(folder, overwrite=overwrite) as writing:
        (writing.partial / REPORT).write_text(text)
    return writing.folder


def test_a_run_that_comes_second_gets_a_number(tmp_path: Path) -> None:
    name = tmp_path / "runs" / "now"
    with whole_folder(name) as slow:
        (slow.partial / REPORT).write_text("slow")
        slow.partial.rename(tmp_path / "aside")  # as of another process
        assert write(name, "fast") == name
        (tmp_path / "aside").rename(slow.partial)
    assert slow.folder.name == "now-2"
    assert write(name, "third").name == "now-3"
    found = {path.name: (path / REPORT).read_text() for path in name.parent.iterdir()}
    assert found == {"now": "fast", "now-2": "slow", "now-3": "third"}


def test_overwrite_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "run", "old")
    assert write(tmp_path / "run", "new", overwrite=True) == tmp_path / "run"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
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
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_file_is_no_parent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be created"):
        write(tmp_path / "file" / "deep" / "run", "run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

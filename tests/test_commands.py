"""How commands end: one line, the right status, no traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scdr.commands import run_command


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; from scdr.commands import run_command; {code}"]


def test_an_interrupt_inside_an_exec_is_an_exit_status_too() -> None:
    """dataclasses and torch run exec(), and Python would then end by the signal itself."""
    code = "sys.exit(run_command(lambda _: exec('raise KeyboardInterrupt'), []))"
    done = subprocess.run(python(code), capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "scdr: interrupted; nothing was written\n"


@pytest.mark.parametrize("length", [1, 10**6])
def test_a_reader_that_leaves_is_no_error(length: int) -> None:
    code = f"sys.stdin.read(); sys.exit(run_command(lambda _: print('x' * {length}), []))"
    process = subprocess.Popen(
        python(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_too_little_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def hungry(_: object) -> None:
        raise MemoryError("Unable to allocate 1.35 TiB")

    assert run_command(hungry, []) == 2
    assert capsys.readouterr().err == ("scdr: error: out of memory: Unable to allocate 1.35 TiB\n")

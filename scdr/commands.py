"""What all commands share: one line for a user's error, 130 for Ctrl-C, no trace of either."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """The system asks the process to end, by SIGTERM."""


INTERRUPTED = 130
TERMINATED = 143
PIPE_CLOSED = 141
BAD_INPUT = 2


def run_command(main: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> int:
    """Run a command's body and turn what ends it into an exit status.

    Returns:
        0; 2 after one line on standard error for anything the user can mend; 130 after Ctrl-C and
        143 after SIGTERM, with a line that says what is left; 141 where whoever reads standard
        output has left, as `head` does.
    """
    # Also where the parent process has left SIGINT ignored, as shells do for background jobs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        # The first import of torch takes a second or two: Ctrl-C must work there as well.
        from scdr.errors import ScdrError
    except KeyboardInterrupt as stop:
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    try:
        try:
            main(arguments)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        # Where it came up inside an exec(), as dataclasses and torch use, Python has marked it as
        # unhandled and would end by the signal, whatever is returned here. A new exec() clears it.
        exec("")
        terminated = isinstance(stop, Terminated)
        how = "terminated" if terminated else "interrupted"
        print(f"scdr: {how}; {str(stop) or 'nothing was written'}", file=sys.stderr)
        return TERMINATED if terminated else INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except MemoryError as error:
        print(f"scdr: error: out of memory: {error}", file=sys.stderr)
        return BAD_INPUT
    except ScdrError as error:
        print(f"scdr: error: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Leave by an exception, as Ctrl-C does, so that nothing half-written is left."""
    raise Terminated

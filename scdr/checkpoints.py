"""The state of a run's stages at the ends of epochs, so that an interrupted run can go on.

A stage has one file, in which a later epoch takes the place of an earlier one. It holds all that
the stage's loop changes: tables, moments of optimisers, generators, the best epoch so far, and what
was shown of each epoch. So the rest of the loop gives the bits that it would have given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scdr.errors import InputError
from scdr.folder import CHECKPOINT_ENDING
from scdr.progress import Advance
from scdr.tensor_file import read_tensors, write_tensors

_LEAST_SHARE = 50
"""Saving takes one part in so many of a stage's time at most."""

Fingerprint = Mapping[str, str]
"""Digests of all that a stage's state depends on, by what they are of."""


class Checkpoints:
    """The checkpoints of one run. Safe to use from several threads, each with stages of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        every: float,
        fingerprint: Callable[[], Fingerprint],
        resumed: bool = False,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Use a folder, which exists.

        Args:
            folder: of this run's checkpoints alone.
            every: seconds between two checkpoints of a stage, at least; 0 saves every epoch.
            fingerprint: gives what the run depends on; asked when a checkpoint is written or found.
            resumed: whether this run goes on with another one.
            note: told what a user should know.
        """
        self.folder, self.every, self.resumed = folder, every, resumed
        self.fingerprint, self.note = fingerprint, note
        self._started = time.monotonic()
        self._failed = threading.Event()

    def load(self, stage: str) -> dict[str, Any] | None:
        """What `save` was given last; None where there is nothing, or nothing that can be used.

        Raises:
            InputError: it belongs to other data, another configuration or another code.
        """
        path = self._path(stage)
        if not path.exists():
            return None
        try:
            tensors, header = read_tensors(path)
            found, state = header["fingerprint"], _unpacked(header["state"], tensors)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.note(f"damaged checkpoint {path} ({error}): left out, {stage} starts again")
            return None
        for what, digest in self.fingerprint().items():
            if found.get(what) != digest:
                raise InputError(
                    f"the checkpoint is of other {what}",
                    where=str(path),
                    fix="bring back what the run was started with; --overwrite starts it again",
                )
        result: dict[str, Any] = state
        return result

    def save(self, stage: str, state: Mapping[str, Any]) -> None:
        """Keep a state in the place of an earlier one; where that fails the earlier one stays."""
        tensors: dict[str, Tensor] = {}
        header = {"fingerprint": dict(self.fingerprint()), "state": _packed(dict(state), tensors)}
        try:
            write_tensors(self._path(stage), tensors, header)
        except OSError as error:
            if not self._failed.is_set():
                self.note(f"no checkpoint could be written: {error.strerror} ({self.folder})")
            self._failed.set()

    def lasted(self) -> bool:
        """Whether the run has lasted long enough for the end of a stage to be kept."""
        return self.resumed or time.monotonic() - self._started >= self.every

    def _path(self, stage: str) -> Path:
        return self.folder / f"{stage.replace(' ', '-')}{CHECKPOINT_ENDING}"


class Stage:
    """A loop over epochs: each is shown, and now and then kept where there are checkpoints.

    Usage:

        parts = {"weights": list(network.parameters()), "optimizer": optimizer, "order": generator}
        for epoch in stage.epochs(20, parts):
            ...
            stage(loss=0.9)
    """

    def __init__(
        self, advance: Advance, name: str = "", checkpoints: Checkpoints | None = None
    ) -> None:
        """Show epochs by `advance`, and keep them under a name."""
        self._advance, self._name, self._checkpoints = advance, name, checkpoints
        self._shown: list[dict[str, float]] = []
        self._saved = time.monotonic()
        self._cost = 0.0

    @classmethod
    def of(cls, advance: Advance) -> Stage:
        """The stage itself; of a plain function a stage that keeps nothing."""
        return advance if isinstance(advance, cls) else cls(advance)

    def __call__(self, **values: float) -> None:
        """Show one epoch with its named values, such as `loss`."""
        self._shown.append(values)
        self._advance(**values)

    def epochs(
        self,
        total: int,
        parts: Mapping[str, Any],
        *,
        ended: Callable[[], bool] = lambda: False,
    ) -> Iterator[int]:
        """Numbers of the epochs to run, from 0; of a resumed run those that are left.

        Args:
            total: epochs in all.
            parts: everything that an epoch changes, at what it is before the first; of a resumed
                run it is put into the state it had. A part is a tensor that epochs change in place,
                a generator of torch or NumPy, anything with `state_dict` and `load_state_dict`, a
                list of parts, or None.
            ended: whether training stops early; it must follow from the parts.
        """
        done = self._restore(parts)
        while done < total and not ended():
            yield done
            done += 1
            self._keep(done, parts, last=done == total or ended())

    def _restore(self, parts: Mapping[str, Any]) -> int:
        state = self._checkpoints.load(self._name) if self._checkpoints else None
        if state is None or self._checkpoints is None:
            return 0
        for name, part in parts.items():
            _restore(part, state["parts"][name])
        for values in state["shown"]:
            self(**values)
        self._checkpoints.note(f"{self._name}: on from epoch {state['epoch']}")
        return int(state["epoch"])

    def _keep(self, epoch: int, parts: Mapping[str, Any], *, last: bool) -> None:
        checkpoints, now = self._checkpoints, time.monotonic()
        if checkpoints is None:
            return
        wait = checkpoints.every and max(checkpoints.every, (_LEAST_SHARE - 1) * self._cost)
        if now - self._saved < wait and not (last and checkpoints.lasted()):
            return
        states = {name: _state(part) for name, part in parts.items()}
        checkpoints.save(self._name, {"epoch": epoch, "shown": self._shown, "parts": states})
        self._saved = time.monotonic()
        self._cost = self._saved - now


def _state(part: Any) -> Any:
    """A part as tensors, arrays and what JSON holds, in lists and dicts."""
    match part:
        case None | Tensor():
            return part
        case list():
            return [_state(one) for one in part]
        case torch.Generator():
            return part.get_state()
        case np.random.Generator():
            return part.bit_generator.state
        case _:
            return part.state_dict()


def _restore(part: Any, state: Any) -> None:
    match part:
        case None:
            pass
        case Tensor():
            with torch.no_grad():
                part.copy_(state)
        case list():
            for one, its in zip(part, state, strict=True):
                _restore(one, its)
        case torch.Generator():
            part.set_state(state)
        case np.random.Generator():
            part.bit_generator.state = state
        case _:
            part.load_state_dict(state)


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A nested value as JSON, its tensors and arrays taken out and numbered."""
    match value:
        case Tensor() | np.ndarray():
            kind = "tensor" if isinstance(value, Tensor) else "array"
            tensors[str(len(tensors))] = torch.as_tensor(value)
            return {kind: len(tensors) - 1}
        case dict():
            return {"dict": [[key, _packed(item, tensors)] for key, item in value.items()]}
        case list() | tuple():
            return [_packed(item, tensors) for item in value]
        case _:
            return value


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    match value:
        case {"tensor": number}:
            return tensors[str(number)]
        case {"array": number}:
            return tensors[str(number)].numpy()
        case {"dict": pairs}:
            return {key: _unpacked(item, tensors) for key, item in pairs}
        case list():
            return [_unpacked(item, tensors) for item in value]
        case _:
            return value

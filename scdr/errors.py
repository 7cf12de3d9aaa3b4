"""The errors a user can cause, each one line: what is wrong, where, and what to do about it."""

from __future__ import annotations


class ScdrError(Exception):
    """Base of all errors that end a command with one line and exit status 2."""

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        """Keep the three parts apart, so that a program can read them too.

        Args:
            what: what is wrong, without a final full stop.
            where: file and line, option or config key it was found at.
            fix: what the user can do.
        """
        self.what, self.where, self.fix = what, where, fix
        place = f" ({where})" if where else ""
        advice = f": {fix}" if fix else ""
        super().__init__(f"{what}{place}{advice}".replace("\n", " "))


class InputError(ScdrError):
    """Data, option or config that cannot be used as it is."""


class DeviceError(ScdrError):
    """The device asked for is not usable here."""


class DivergenceError(ScdrError):
    """Training left the finite numbers."""

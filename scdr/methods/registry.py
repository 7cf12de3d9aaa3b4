"""Methods by name: the package's own, those of other packages, those a program registers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points

from scdr.errors import InputError
from scdr.methods.base import Method

GROUP = "scdr.methods"
"""Entry point group in which other packages name their methods."""


class Methods(Mapping[str, Method]):
    """Methods by name, in the order of the tables; then those from outside the package.

    A package that is installed beside this one adds a method by an entry point in the group
    `scdr.methods`, whose name is the method's and whose object is a `Method`. It is imported when
    it is first asked for.
    """

    def __init__(self, methods: Iterable[Method], *, group: str | None = None) -> None:
        """Start with some methods.

        Args:
            methods: in the order of the tables.
            group: entry point group to look for more in; None: none.
        """
        self._methods = {method.name: method for method in methods}
        self._group = group

    def register(self, method: Method) -> Method:
        """Add a method for the rest of this process.

        Raises:
            ValueError: there is one of its name, or a preset is missing.
        """
        if method.name in self:
            raise ValueError(f"there is a method {method.name!r} already")
        _check_presets(method)
        self._methods[method.name] = method
        return method

    @cached_property
    def _outside(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self._group) if self._group else ():
            if point.name in self._methods or point.name in found:
                raise InputError(
                    f"there is a method {point.name!r} already",
                    where=f"package {_package(point)}",
                    fix="rename it, or uninstall that package",
                )
            found[point.name] = point
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._methods or name in self._outside

    def __getitem__(self, name: str) -> Method:
        if name not in self._methods:
            self._methods[name] = _load(self._outside[name])
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._methods, *self._outside]))

    def __len__(self) -> int:
        return len(set(self))


def _load(point: EntryPoint) -> Method:
    package = _package(point)
    try:
        method = point.load()
        if not isinstance(method, Method):
            raise TypeError(f"{point.value} is a {type(method).__name__}, not a Method")
        if method.name != point.name:
            raise ValueError(f"{point.value} is called {method.name!r}")
        _check_presets(method)
    except Exception as error:  # whatever the other package does wrong
        raise InputError(
            f"the method {point.name!r} of the package {package} can't be loaded: {error}",
            fix=f"mend or uninstall {package}",
        ) from error
    return method


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.module


def _check_presets(method: Method) -> None:
    missing = {"default", "paper"} - set(method.presets)
    if missing:
        raise ValueError(f"method {method.name!r} has no preset {' and '.join(sorted(missing))}")

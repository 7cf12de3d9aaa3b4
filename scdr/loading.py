"""The data that a configuration names: two files, the example, or a synthetic pair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scdr.config import DataConfig
from scdr.data import (
    CrossDomain,
    Interactions,
    Planted,
    ReadReport,
    cross_domain,
    example_paths,
    planted,
    preflight,
    preset,
    read_domain,
)
from scdr.errors import InputError
from scdr.options import columns_of
from scdr.progress import Progress


@dataclass(frozen=True)
class Loaded:
    """A pair of domains as a run uses it.

    Attributes:
        domains: source, target and their overlap users.
        reports: what was found in the files; empty for synthetic data.
        planted: the truth behind synthetic data; None for files.
    """

    domains: CrossDomain
    reports: tuple[ReadReport, ...] = ()
    planted: Planted | None = None


def load(config: DataConfig, progress: Progress, *, core: int, strict: bool) -> Loaded:
    """Read or make the two domains that a configuration names.

    Args:
        config: where the ratings come from.
        progress: told of the bytes read.
        core: ratings that every user and item of a file keeps at least.
        strict: refuse a file with any malformed row.

    Raises:
        InputError: the options contradict each other, a file can't be used, or no user is in both.
    """
    files = [path for path in (config.source, config.target) if path is not None]
    _check_used(config, files)
    if config.synthetic:
        if files:
            raise InputError(
                "files and synthetic data at once", where="--synthetic", fix="give one of them"
            )
        made = _synthetic(config)
        return Loaded(made.domains, planted=made)
    if len(files) == 1:
        missing = "--target" if config.target is None else "--source"
        raise InputError(f"{missing} is missing", fix="give both domains, or neither")
    paths = files or [str(path) for path in example_paths()]

    def read(role: str, path: str) -> tuple[Interactions, ReadReport]:
        with progress.reading(f"read {role}") as advance:
            return read_domain(
                path,
                format=getattr(config, f"{role}_format"),
                columns=columns_of(getattr(config, f"{role}_columns"), where=f"--{role}-columns"),
                core=core,
                strict=strict,
                progress=advance,
            )

    source, source_report = read("source", paths[0])
    target, target_report = read("target", paths[1])
    pair = cross_domain(source, target, name=" to ".join(_stem(path) for path in paths))
    preflight(pair)
    return Loaded(pair, reports=(source_report, target_report))


def _check_used(config: DataConfig, files: list[str]) -> None:
    """Refuse options that would do nothing."""
    if config.scale != 1 and not config.synthetic:
        raise InputError("--scale without synthetic data", fix="add --synthetic, or leave it out")
    for role in ("source", "target"):
        chosen = getattr(config, f"{role}_columns") or getattr(config, f"{role}_format") != "auto"
        if chosen and not files:
            raise InputError(
                f"a format or columns of the {role} without files",
                fix="give --source and --target, or leave it out",
            )


def _synthetic(config: DataConfig) -> Planted:
    if config.synthetic == "planted":
        if config.scale != 1:
            raise InputError(
                "the planted pair has one size", where="--scale", fix="leave --scale out"
            )
        return planted(signal=config.signal, seed=config.data_seed)
    return preset(
        str(config.synthetic), scale=config.scale, signal=config.signal, seed=config.data_seed
    )


def _stem(path: str) -> str:
    return Path(path).name.split(".")[0]

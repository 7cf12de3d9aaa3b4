"""The pair of domains that ships with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def example_paths() -> tuple[Path, Path]:
    """Return the source and the target file: Epinions Cat03 and Cat05.

    Their origin and citation are in the README.md beside them.
    """
    folder = Path(str(files("scdr.data") / "example"))
    return folder / "ratings_Cat03.csv.gz", folder / "ratings_Cat05.csv.gz"

"""`python -m scdr.export`: a model as ONNX, or as NumPy arrays that need no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro

from scdr.commands import run_command
from scdr.hyperparameters import STRICT


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, as what, and where."""

    __pydantic_config__ = STRICT

    model: tyro.conf.Positional[str]
    """Run folder of scdr.train, or the model.safetensors in it."""
    to: Literal["onnx", "numpy"]
    """onnx: mapping.onnx, scorer.onnx and ids.json; numpy: model.npz and example.py."""
    out: str
    """Folder to write; it must not exist."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_export, sys.argv[1:] if arguments is None else arguments)


def _export(arguments: Sequence[str]) -> None:
    config = tyro.cli(
        ExportConfig,
        prog="python -m scdr.export",
        description="Write a trained model for programs that have no scdr.",
        args=list(arguments),
    )
    from scdr.options import checked

    config = checked(ExportConfig, asdict(config), where="command line")
    files = export(config)
    print(f"{', '.join(files)} in {config.out}")


def export(config: ExportConfig) -> list[str]:
    """Write the files; the folder appears whole or not at all.

    Returns:
        Their names.

    Raises:
        InputError: there is no model, the folder exists or can't be written, or a package is
            missing.
    """
    import importlib.util
    import tempfile

    from scdr.errors import InputError
    from scdr.methods import FactorPredictor
    from scdr.serving.exporting import export_numpy, export_onnx
    from scdr.serving.predictor import model_path

    if config.to == "onnx":
        for package in ("onnx", "onnxscript"):
            if importlib.util.find_spec(package) is None:
                raise InputError(f"ONNX needs {package}", fix="pip install 'scdr[onnx]'")
    out = Path(config.out).absolute()
    if out.exists():
        raise InputError("the folder exists", where=config.out, fix="name another --out")
    saved = FactorPredictor.load(model_path(config.model))
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
            folder = Path(work) / out.name
            folder.mkdir()
            (export_onnx if config.to == "onnx" else export_numpy)(saved, folder)
            folder.rename(out)
    except OSError as error:
        raise InputError(
            f"the folder can't be written: {error.strerror}",
            where=config.out,
            fix="give an --out that can be written to",
        ) from error
    return sorted(path.name for path in out.iterdir())


if __name__ == "__main__":
    sys.exit(main())

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scdr.errors import InputError
from scdr.methods import METHODS
from scdr.methods.registry import Methods
from scdr.methods.tgt import TGT

PLUGIN = """
from dataclasses import replace
from scdr.methods import METHODS
ITEM_ONLY = replace(METHODS["tgt"], name="item_only")
"""
DOCUMENTED = (Path(__file__).parents[2] / "docs/methods.md").read_text()
DOCUMENTED = DOCUMENTED.partition("## A method of your own")[2]


def install(folder: Path, entry_point: str, module: str = PLUGIN) -> None:
    """A package as an installer leaves it, in a folder of its own."""
    (folder / "other_package.py").write_text(module)
    information = folder / "other_package-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: other-package\nVersion: 1\n"
    )
    (information / "entry_points.txt").write_text(f"[scdr.methods]\n{entry_point}\n")


def test_in_the_order_of_the_tables() -> None:
    names = "tgt cmf emcdr sscdr clcdr ptupcdr tmcdr task_mapping scdr_minus scdr"  # Table II, VII
    assert list(METHODS) == [*names.split(), "scdr_b"]


def test_the_taxonomy_is_that_of_table_iv() -> None:
    assert [name for name, method in METHODS.items() if not method.cross_domain] == ["tgt"]
    assert [name for name, method in METHODS.items() if not method.mapping_based] == ["tgt", "cmf"]


def test_the_documented_package_adds_a_method_to_the_command(tmp_path: Path) -> None:
    module = DOCUMENTED.partition("```python\n")[2].partition("```")[0]
    install(tmp_path, "half_mean = other_package:HALF_MEAN", module)
    out = tmp_path / "run"
    options = DOCUMENTED.partition("python -m scdr.train ")[2].partition("`")[0].split()
    command = [sys.executable, "-m", "scdr.train", *options, "--out", str(out)]
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Half mean" in done.stdout
    report = json.loads((out / "report.json").read_text())
    assert (report["method"], report["config"]["model"]) == ("half_mean", {"share": 0.3})
    assert report["test"]["rmse"] < report["controls"]["global_mean"]["rmse"]


@pytest.mark.parametrize(
    ("entry_point", "reason"),
    [
        ("item_only = other_package:MISSING", "MISSING"),
        ("item_only = other_package:METHODS", "not a Method"),
        ("other = other_package:ITEM_ONLY", "is called 'item_only'"),
    ],
)
def test_a_broken_package_is_one_line_and_hurts_no_other_method(
    entry_point: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, entry_point)
    monkeypatch.syspath_prepend(tmp_path)
    methods = Methods([TGT], group="scdr.methods")
    name = entry_point.split()[0]
    assert list(methods) == ["tgt", name]
    assert methods["tgt"] is TGT
    with pytest.raises(InputError, match=f"{name}.*other-package.*{reason}.*uninstall"):
        methods[name]
    sys.modules.pop("other_package")


def test_another_package_does_not_replace_a_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "tgt = other_package:ITEM_ONLY")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"'tgt' already \(package other-package\)"):
        list(Methods([TGT], group="scdr.methods"))


def test_a_program_registers_a_method() -> None:
    methods = Methods([TGT])
    mine = replace(TGT, name="mine")
    assert methods.register(mine) is mine
    assert methods["mine"] is mine
    assert list(methods) == ["tgt", "mine"]
    with pytest.raises(ValueError, match="there is a method 'mine' already"):
        methods.register(mine)
    with pytest.raises(ValueError, match="no preset paper"):
        methods.register(replace(TGT, name="half", presets={"default": TGT.presets["default"]}))

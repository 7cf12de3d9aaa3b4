"""Digests of what a result depends on: data, hyper-parameters, code."""

from __future__ import annotations

import hashlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

import scdr
from scdr.build import build_info
from scdr.data import CrossDomain, Interactions
from scdr.methods import Method

LENGTH = 32
"""Hexadecimal digits of a digest."""


def digest(*parts: Any) -> str:
    """The digest of anything that JSON holds, NumPy arrays and scalars included."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return hashlib.sha256(orjson.dumps(parts, option=options)).hexdigest()[:LENGTH]


def ratings_digest(interactions: Interactions) -> str:
    """Who rates what how, by index, in the order of the rows; ids and times left out."""
    content = hashlib.sha256()
    for column in (interactions.users, interactions.items, interactions.ratings):
        content.update(np.ascontiguousarray(column).data)
    sizes = len(interactions), interactions.n_users, interactions.n_items
    return digest(content.hexdigest(), sizes)


def domains_digest(domains: CrossDomain) -> str:
    """Everything in a pair of domains but its name."""
    parts = []
    for domain in (domains.source, domains.target):
        times = hashlib.sha256(np.ascontiguousarray(domain.times).data).hexdigest()
        parts += [ratings_digest(domain), times]
        parts += [digest(domain.user_ids.tolist()), digest(domain.item_ids.tolist())]
    return digest(parts)


@cache
def code_digest(*places: str) -> str:
    """The code of some folders and files of scdr, its native code, and the libraries it uses.

    Bits may differ between SIMD levels and versions of torch and NumPy, so these are part of it.
    """
    root = Path(scdr.__file__).parent
    content = hashlib.sha256()
    files = {file for place in places for file in ((root / place), *(root / place).rglob("*.py"))}
    for path in sorted(file for file in files if file.is_file()):
        content.update(path.relative_to(root).as_posix().encode())
        content.update(path.read_bytes())
    for path in sorted(root.glob("_C*.*")):
        content.update(path.read_bytes())
    return digest(content.hexdigest(), torch.__version__, np.__version__, build_info().simd)


def method_digest(method: Method) -> str:
    """The file that defines how a method is fitted, which may lie outside the package."""
    try:
        path = inspect.getsourcefile(inspect.unwrap(method.fit))
        return digest(Path(path).read_text(encoding="utf-8")) if path else ""
    except (TypeError, OSError):  # a callable object, or a function typed into a console
        return ""

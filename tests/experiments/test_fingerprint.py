"""Digests: equal for what gives equal results, different for all else."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from scdr.data import ColdStartSplit
from scdr.fingerprint import code_digest, domains_digest, method_digest
from scdr.methods import METHODS


def test_the_name_of_a_pair_does_not_count(split: ColdStartSplit) -> None:
    renamed = replace(split.domains, name="another")
    assert domains_digest(renamed) == domains_digest(split.domains)


@pytest.mark.parametrize("role", ["source", "target"])
@pytest.mark.parametrize("column", ["users", "items", "ratings", "times", "user_ids", "item_ids"])
def test_every_column_of_both_domains_counts(role: str, column: str, split: ColdStartSplit) -> None:
    domain = getattr(split.domains, role)
    values = getattr(domain, column).copy()
    values[0] = "x" if values.dtype == object else values[0] + 1
    changed = replace(split.domains, **{role: replace(domain, **{column: values})})
    assert domains_digest(changed) != domains_digest(split.domains)


def test_the_order_of_rows_counts(split: ColdStartSplit) -> None:
    """Factors depend on it."""
    source = split.domains.source
    turned = replace(split.domains, source=source.take(np.arange(len(source))[::-1]))
    assert domains_digest(turned) != domains_digest(split.domains)


def test_code() -> None:
    assert code_digest("models", "ops") == code_digest("ops", "models") != code_digest("ops")
    assert code_digest("prediction.py") != code_digest()
    files = {method_digest(METHODS[name]) for name in ("tgt", "emcdr", "scdr", "scdr_minus")}
    assert len(files) == 3  # the last two are one file
    scdr = METHODS["scdr"]
    assert method_digest(replace(scdr, fit=partial(scdr.fit))) == ""

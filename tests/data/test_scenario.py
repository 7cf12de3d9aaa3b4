from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scdr.data import (
    Interactions,
    cross_domain,
    dataset_card,
    from_columns,
    preflight,
    read_domain,
    statistics,
)
from scdr.errors import InputError

IDS = st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=2))


def _domain(
    users: Sequence[str], items: Sequence[str] | None = None, times: Sequence[int] | None = None
) -> Interactions:
    items = items or [f"thing {number}" for number in range(len(users))]
    return from_columns(list(users), list(items), np.ones(len(users)), times)


@given(IDS, IDS)
def test_overlap_is_ordered_by_id(first: set[str], second: set[str]) -> None:
    source, target = _domain(sorted(first)), _domain(sorted(second, reverse=True))
    domains = cross_domain(source, target, "pair")
    common = sorted(first & second)
    assert domains.overlap.shape == (len(common), 2)
    assert domains.overlap.dtype == np.int32
    assert list(source.user_ids[domains.overlap[:, 0]]) == common
    assert list(target.user_ids[domains.overlap[:, 1]]) == common
    assert list(domains.overlap_ids) == common


NUMBERS = [str(number) for number in range(1000, 1060)]
READERS = [f"A{number:07d}XYZQW" for number in range(60)]
BOOKS = [f"B{number:09d}" for number in range(60)]
NEW_READERS = [f"AE{number:026d}" for number in range(60)]

CAUSES = {
    "case": (_domain(READERS), _domain([name.lower() for name in READERS]), "upper and lower"),
    "blanks": (_domain(READERS), _domain([f" {name}" for name in READERS]), "surrounding blanks"),
    "padding": (_domain(NUMBERS), _domain([f"00{name}" for name in NUMBERS]), "zero padding"),
    "all three": (
        _domain([f"{name}a" for name in NUMBERS]),
        _domain([f" 0{name}A" for name in NUMBERS]),
        "blanks, case and zero padding",
    ),
    "source swapped": (
        _domain(BOOKS, READERS),
        _domain(READERS, [f"C{book}" for book in BOOKS]),
        "columns of the source look swapped",
    ),
    "target swapped": (
        _domain(READERS, BOOKS),
        _domain([f"C{book}" for book in BOOKS], READERS),
        "columns of the target look swapped",
    ),
    "both swapped": (
        _domain(BOOKS, READERS),
        _domain([f"C{book}" for book in BOOKS], READERS),
        "columns of both domains look swapped",
    ),
    "other kind": (_domain(READERS), _domain(NEW_READERS), "the user ids are of different kinds"),
    "other years": (
        _domain(NUMBERS[:30], times=range(1, 31)),
        _domain(NUMBERS[30:], times=range(1000, 1030)),
        "the source's times are 1 to 30, the target's 1000 to 1029",
    ),
    "nothing": (_domain(NUMBERS[:30]), _domain(NUMBERS[30:]), "none of 30 source users"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_preflight_says_why(cause: str) -> None:
    source, target, message = CAUSES[cause]
    with pytest.raises(InputError) as caught:
        preflight(cross_domain(source, target, "our pair"))
    assert caught.value.what.startswith("no overlap users: ")
    assert message in caught.value.what
    assert caught.value.where == "our pair"
    assert caught.value.fix


def test_same_item_numbers_prove_no_swap() -> None:
    items = [str(number) for number in range(30)]
    with pytest.raises(InputError, match="none of 30 source users"):
        preflight(cross_domain(_domain(NUMBERS[:30], items), _domain(NUMBERS[30:], items)))


def test_preflight_accepts_one_common_user() -> None:
    domains = cross_domain(_domain(["a", "b"]), _domain(["b", "c"]))
    preflight(domains)
    assert domains.overlap_ids.tolist() == ["b"]


def test_statistics_by_hand() -> None:
    source = from_columns(list("aabc"), list("xyxx"), [5, 3, 2, 2], [7, 9, 8, 0])
    target = from_columns(list("bdd"), list("xyz"), [1, 4, 4])
    figures = statistics(cross_domain(source, target, "by hand"))
    assert (figures.source.users, figures.source.items, figures.source.ratings) == (3, 2, 4)
    assert figures.source.density == pytest.approx(4 / 6)
    assert figures.source.rating_mean == 3.0
    assert (figures.source.rating_min, figures.source.rating_max) == (2.0, 5.0)
    assert figures.source.rating_values == 3
    assert (figures.source.first_time, figures.source.last_time) == (7, 9)
    assert figures.source.user_ratings[0] == 1
    assert figures.source.user_ratings[2] == 1  # the median of 2, 1, 1
    assert figures.source.user_ratings[-1] == 2
    assert figures.target.first_time is None
    assert figures.overlap_users == 1
    assert figures.ratio == pytest.approx(1 / 4)  # b among a, b, c, d
    assert (figures.overlap_source_ratings, figures.overlap_target_ratings) == (1, 1)


def test_dataset_card(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("card") / "source.csv"
    lines = [f"u{row % 10},i{row // 10},{row % 5 + 1},1" for row in range(200)]
    path.write_text("\n".join([*lines, "u1,i1,bad,1", "u1,i1,4,2"]))
    source, report = read_domain(path)
    target, other = read_domain(path, core=0)
    card = dataset_card(cross_domain(source, target, "little"), (report, other))
    assert card.startswith("# little\n\n10 overlap users, 100.00% of the users of either domain.")
    assert "| ratings | 200 | 200 |" in card
    assert "| duplicates replaced | 1 | 1 |" in card
    assert "| core | 5 | 0 |" in card
    assert f"- {path}:201: rating 'bad' is not a number" in card
    widths = {line.count("|") for line in card.splitlines() if line.startswith("|")}
    assert widths == {4}

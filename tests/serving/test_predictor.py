"""Predictor: who is answered from what, and that the answers are the model's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from serving.people import cold_users, history_of, scores, target_users

import scdr
from scdr.data import ColdStartSplit
from scdr.errors import InputError
from scdr.methods import METHODS, FactorPredictor
from scdr.serving import Predictor

PredictorOf = Callable[[str], Predictor]
WITHOUT_SOURCE = {"tgt"}
"""Methods that know nothing of the source, and so nothing of a history."""


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_four_kinds_of_users(name: str, predictor_of: PredictorOf, split: ColdStartSplit) -> None:
    predictor = predictor_of(name)
    history = history_of(split, 3)
    unseen = {"never seen": 4.0}
    users = [target_users(split)[0], cold_users(split)[0], history, unseen, {}, None, "nobody"]
    folded = "items_alone" if name in WITHOUT_SOURCE else "folded_in"
    expected = ["target_user", "source_user", folded, *["items_alone"] * 4]
    items = predictor.item_ids[:7].tolist()
    for answers in (predictor.predict(users, items), predictor.recommend(users, 5)):
        assert [answer.answered_as for answer in answers] == expected
        for answer in answers:
            assert np.isfinite(answer.ratings).all()
            assert ((answer.ratings >= 1) & (answer.ratings <= 5)).all()


def test_a_source_user_gets_the_predictions_of_the_model(
    name: str, predictor_of: PredictorOf, model_of: Callable[[str], Path], split: ColdStartSplit
) -> None:
    model = FactorPredictor.load(model_of(name)).predictor
    users, items = split.test_pairs[:6, 0], np.arange(-1, 20)
    ids = ["unheard of", *predictor_of(name).item_ids[:20]]
    for user, found in zip(
        users, predictor_of(name).predict(cold_users(split)[:6], ids), strict=True
    ):
        expected = model.predict(np.full(len(items), user), items)
        np.testing.assert_allclose(found.ratings, np.clip(expected, 1, 5), rtol=1e-5)
        assert found.known.tolist() == [False] + [True] * 20


def test_folded_in_a_user_is_predicted_as_from_training(
    name: str, predictor_of: PredictorOf, split: ColdStartSplit
) -> None:
    """The same history, once seen by training and once not: what is left is SGD's distance from
    the minimum."""
    predictor = predictor_of(name)
    if not predictor.folds_in:
        pytest.skip("this method has no place for new users")
    items = predictor.item_ids.tolist()
    users = split.test_pairs[:, 0]
    own = predictor.predict(cold_users(split), items)
    folded = predictor.predict([history_of(split, user) for user in users], items)
    first, second = (np.stack([one.ratings for one in some]) for some in (own, folded))
    # Around the items' means, where all users agree.
    spread = (first - first.mean(0)).std()
    assert np.sqrt(((first - second) ** 2).mean()) < 0.1 * spread
    middle = (first - first.mean(0)).ravel()
    assert np.corrcoef(middle, (second - first.mean(0)).ravel())[0, 1] > 0.99


def test_a_target_user_gets_the_own_vector(
    predictor_of: PredictorOf, split: ColdStartSplit
) -> None:
    """Better than any mapped vector on the ratings that the target was trained on."""
    target = split.training.target
    both = split.training.train_pairs
    for name in ("scdr", "scdr_b", "cmf"):
        predictor = predictor_of(name)
        own, folded = [], []
        for source, user in both[:20]:
            rows = target.users == user
            items = [target.item_ids[item] for item in target.items[rows]]
            as_target = predictor.predict(target.user_ids[user], items)
            assert as_target.answered_as == "target_user"
            own.append(as_target.ratings - target.ratings[rows])
            as_history = predictor.predict(history_of(split, source), items)
            folded.append(as_history.ratings - target.ratings[rows])
        assert np.square(np.concatenate(own)).mean() <= np.square(np.concatenate(folded)).mean()


@pytest.mark.parametrize("name", ["scdr", "ptupcdr", "scdr_b"])
def test_recommended_are_the_best_by_the_linear_prediction(
    name: str, predictor_of: PredictorOf, model_of: Callable[[str], Path], split: ColdStartSplit
) -> None:
    model, predictor = FactorPredictor.load(model_of(name)).predictor, predictor_of(name)
    for user, source in zip(cold_users(split)[:5], split.test_pairs[:5, 0], strict=True):
        vector = model.user_vectors(torch.tensor([source]))[0].detach().numpy()
        ranked = np.argsort(-scores(model, vector.astype(np.float64)), kind="stable")
        out = [predictor.item_ids[item] for item in ranked[:4:2]]
        expected = [
            predictor.item_ids[item] for item in ranked if predictor.item_ids[item] not in out
        ]
        best = predictor.recommend(user, 7, [*out, "unheard of"])
        assert best.items == expected[:7]
        np.testing.assert_array_equal(best.ratings, predictor.predict(user, best.items).ratings)


def test_nobody_gets_the_items_best_liked(
    predictor_of: PredictorOf, model_of: Callable[[str], Path]
) -> None:
    model, predictor = FactorPredictor.load(model_of("scdr")).predictor, predictor_of("scdr")
    ranked = predictor.item_ids[np.argsort(-model.items.priors[:-1].numpy(), kind="stable")]
    assert predictor.recommend(None, 6).items == ranked[:6].tolist()
    best = predictor.recommend([None, {}], 6, exclude=[ranked[:2].tolist(), ranked[1:3].tolist()])
    assert best[0].items == ranked[2:8].tolist()
    assert best[1].items == [ranked[0], *ranked[3:8]]


def test_alone_or_in_a_batch_it_is_the_same(
    predictor_of: PredictorOf, split: ColdStartSplit
) -> None:
    predictor = predictor_of("ptupcdr")
    users: list[Any] = [
        *cold_users(split)[:20],
        *(history_of(split, user) for user in range(20)),
        None,
    ]
    exclude = [predictor.item_ids[n : n + 3].tolist() for n in range(len(users))]
    for user, out, together in zip(
        users, exclude, predictor.recommend(users, 9, exclude), strict=True
    ):
        alone = predictor.recommend(user, 9, out)
        assert alone.items == together.items
        np.testing.assert_allclose(alone.ratings, together.ratings, rtol=1e-6)
        assert not set(out) & set(alone.items)


def test_a_history_may_be_pairs_and_the_last_of_an_item_counts(
    predictor_of: PredictorOf, split: ColdStartSplit
) -> None:
    predictor = predictor_of("ptupcdr")
    history = history_of(split, 5)
    first = next(iter(history))
    pairs = [(first, 1.0 if history[first] > 3 else 5.0), ("unheard of", 3.0), *history.items()]
    items = predictor.item_ids[:9].tolist()
    expected = predictor.predict(history, items).ratings
    np.testing.assert_array_equal(predictor.predict(pairs, items).ratings, expected)


def test_fewer_items_than_asked_for(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("scdr_b")
    everything = predictor.item_ids.tolist()
    for user in (None, "nobody", next(iter(predictor._source_users))):
        assert sorted(predictor.recommend(user, 10**6).items) == everything
        assert predictor.recommend(user, 9, everything[2:]).items != []
        assert sorted(predictor.recommend(user, 9, everything[2:]).items) == everything[:2]
        assert predictor.recommend(user, 9, everything).items == []


def test_an_empty_batch_is_an_empty_answer(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("scdr")
    assert predictor.predict([], []) == []
    assert predictor.recommend([], 3) == []
    assert len(predictor.predict(None, []).ratings) == 0


WRONG: dict[str, Callable[[Predictor], object]] = {
    "k is 0": lambda p: p.recommend(None, 0),
    "k is 2.5": lambda p: p.recommend(None, 2.5),  # type: ignore[call-overload]
    "k is True": lambda p: p.recommend(None, True),
    "user is a int": lambda p: p.predict(7, ["a"]),  # type: ignore[call-overload]
    "not finite": lambda p: p.predict({p.source_item_ids[0]: float("nan")}, ["a"]),
    "neither a mapping": lambda p: p.predict([[("a", 1.0, 2.0)]], ["a"]),
    "items must be": lambda p: p.predict(None, "abc"),
    "exclude must be": lambda p: p.recommend(None, 3, [1, 2]),  # type: ignore[list-item]
    "items must be item ids": lambda p: p.predict([None, None], [["a"]]),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_argument_is_named(message: str, predictor_of: PredictorOf) -> None:
    with pytest.raises(ValueError, match=message):
        WRONG[message](predictor_of("scdr"))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.safetensors"):
        Predictor.load(tmp_path)


def test_importing_scdr_imports_no_torch() -> None:
    code = "import sys, scdr; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert scdr.Predictor is Predictor

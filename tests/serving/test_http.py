"""The HTTP service: the library's answers as JSON, and every bad request a 4xx with one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving.people import cold_users, history_of, target_users

from scdr.data import ColdStartSplit
from scdr.serve import main
from scdr.serving import Predictor

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from fastapi.testclient import TestClient  # noqa: E402

from scdr.serving.http import Limits, create_app  # noqa: E402


@pytest.fixture(scope="module")
def client(predictor_of: Callable[[str], Predictor]) -> Iterator[TestClient]:
    limits = Limits(body_bytes=10_000, users=8, k=30, items=9, history=40)
    with TestClient(create_app(predictor_of("scdr_b"), limits)) as client:
        yield client


def test_it_answers_as_the_library_does(
    client: TestClient, predictor_of: Callable[[str], Predictor], split: ColdStartSplit
) -> None:
    predictor, history = predictor_of("scdr_b"), history_of(split, 2)
    users: list[dict[str, Any]] = [
        {"id": target_users(split)[0]},
        {"id": cold_users(split)[0], "exclude": predictor.item_ids[:9].tolist()},
        {"history": history},
        {},
    ]
    asked = [users[0]["id"], users[1]["id"], history, None]
    answer = client.post("/recommend", json={"users": users, "k": 5})
    assert answer.status_code == 200
    expected = predictor.recommend(asked, 5, [[], users[1]["exclude"], [], []])
    for found, best in zip(answer.json()["users"], expected, strict=True):
        assert found["items"] == best.items
        assert found["ratings"] == pytest.approx(best.ratings.tolist())
        assert found["answered_as"] == best.answered_as
    users[1].pop("exclude")
    items = [*predictor.item_ids[:3], "unheard of"]
    answer = client.post("/predict", json={"users": users, "items": items})
    for found, prediction in zip(
        answer.json()["users"], predictor.predict(asked, items), strict=True
    ):
        assert found["ratings"] == pytest.approx(prediction.ratings.tolist())
        assert found["known"] == [True, True, True, False]
        assert found["answered_as"] == prediction.answered_as


def test_health_says_what_is_served(client: TestClient) -> None:
    assert client.get("/health").json() | {"version": ""} == {
        "status": "ok",
        "version": "",
        "method": "scdr_b",
        "items": 60,
        "folds_in": True,
    }


BAD: dict[str, tuple[str, Any, int, str]] = {
    "no users": ("/recommend", {"k": 3}, 422, "users: Field required"),
    "both": ("/recommend", {"users": [{"id": "a", "history": {}}]}, 422, "not both"),
    "unknown key": ("/recommend", {"users": [{"name": "a"}]}, 422, "users.0.name"),
    "id of another type": ("/recommend", {"users": [{"id": 5}]}, 422, "users.0.id"),
    "k 0": ("/recommend", {"users": [], "k": 0}, 422, "k: "),
    "k too large": ("/recommend", {"users": [], "k": 31}, 422, "k: 31 is more than 30"),
    "too many users": ("/recommend", {"users": [{}] * 9}, 422, "users: 9 entries"),
    "too many items": ("/predict", {"users": [{}], "items": ["a"] * 10}, 422, "items: 10 entries"),
    "too long a history": (
        "/predict",
        {"users": [{}, {"history": {str(n): 1 for n in range(41)}}], "items": []},
        422,
        "users.1.history: 41 entries",
    ),
    "too much to exclude": (
        "/recommend",
        {"users": [{"exclude": ["a"] * 41}]},
        422,
        "users.0.exclude: 41 entries",
    ),
    "rating no number": ("/recommend", {"users": [{"history": {"a": "x"}}]}, 422, "history.a"),
    "rating not finite": ("/recommend", b'{"users":[{"history":{"a":Infinity}}]}', 422, "finite"),
    "rating beyond float64": ("/recommend", b'{"users":[{"history":{"a":1e999}}]}', 422, "finite"),
    "no JSON": ("/recommend", b"{", 422, "JSON"),
    "no UTF-8": ("/recommend", b'{"users":[{"id":"\xff"}]}', 400, "body"),
    "no object": ("/recommend", [], 422, ""),
    "too deep": ("/recommend", b"[" * 9000, 400, "body"),
    "body too large": ("/recommend", b" " * 10_001, 413, "larger than 10000 bytes"),
    "no such path": ("/nowhere", {}, 404, "Not Found"),
    "wrong method": ("/health", {}, 405, "Method Not Allowed"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_is_one_line(kind: str, client: TestClient) -> None:
    path, body, status, expected = BAD[kind]
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = client.post(path, headers={"content-type": "application/json"}, **sent)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert expected in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_a_body_without_a_length_is_limited_too(client: TestClient) -> None:
    pieces = (b" " * 4000 for _ in range(5))
    headers = {"content-type": "application/json"}
    assert client.post("/predict", content=pieces, headers=headers).status_code == 413


def test_the_command_serves_until_it_is_stopped(model_of: Callable[[str], Path]) -> None:
    command = [sys.executable, "-m", "scdr.serve", str(model_of("scdr_b")), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = re.search(r"http://\S+(?=,)", process.stdout.readline())
        assert url is not None
        assert httpx.get(f"{url[0]}/health", timeout=30).json()["items"] == 60
        taken = url[0].rpartition(":")[2]
        assert main([str(model_of("scdr_b")), "--port", taken]) == 2
    finally:
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors

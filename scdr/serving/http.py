"""The HTTP service: health, predict and recommend as JSON over a `Predictor`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence, Sized
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Self

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, FiniteFloat, PositiveInt, model_validator
from starlette.exceptions import HTTPException as StarletteHTTPException

from scdr.serving.answers import AnsweredAs, User
from scdr.serving.predictor import Predictor

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may hold; more is answered with 413 or 422."""

    body_bytes: int = 8_000_000
    users: int = 1_000
    k: int = 1_000
    items: int = 1_000
    """Items to predict."""
    history: int = 10_000
    """Ratings in a history, and items to exclude for a user."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class UserRequest(_Strict):
    """A user by id, by source ratings (oldest first), or, with neither, one who is not known."""

    id: str | None = None
    history: dict[str, FiniteFloat] | None = None

    @model_validator(mode="after")
    def one_way(self) -> Self:
        """Refuse a user who is named in two ways."""
        if self.id is not None and self.history is not None:
            raise ValueError("give an id or a history, not both")
        return self

    def asked(self) -> User:
        """As `Predictor` takes a user."""
        return self.id if self.id is not None else self.history


class ExcludingUser(UserRequest):
    """A user, and target items not to be recommended."""

    exclude: list[str] = []


class PredictRequest(_Strict):
    """Users, and target items to predict for each of them."""

    users: list[UserRequest]
    items: list[str]


class RecommendRequest(_Strict):
    """Users, and how many items each is to get."""

    users: list[ExcludingUser]
    k: PositiveInt = 20


class Health(_Strict):
    """What is being served."""

    status: str = "ok"
    version: str
    method: str | None
    items: int
    folds_in: bool


class UserPrediction(_Strict):
    """Ratings predicted for one user; `known` tells which items the model knows."""

    ratings: list[float]
    known: list[bool]
    answered_as: AnsweredAs


class UserRecommendation(_Strict):
    """The best items of one user, and the ratings predicted for them."""

    items: list[str]
    ratings: list[float]
    answered_as: AnsweredAs


class Predictions(_Strict):
    """One entry for each user asked for."""

    users: list[UserPrediction]


class Recommendations(_Strict):
    """One entry for each user asked for."""

    users: list[UserRecommendation]


def create_app(predictor: Predictor, limits: Limits | None = None) -> FastAPI:
    """The service as an ASGI application.

    Args:
        predictor: what answers; shared by all requests.
        limits: of a request.
    """
    limit = limits or Limits()
    app = FastAPI(title="scdr", version=version("scdr"), redoc_url=None)
    app.add_middleware(_BodyLimit, limit=limit.body_bytes)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _refused)

    def check_users(users: Sequence[UserRequest]) -> list[User]:
        _at_most(limit.users, "users", users)
        for number, user in enumerate(users):
            _at_most(limit.history, f"users.{number}.history", user.history or ())
        return [user.asked() for user in users]

    @app.get("/health")
    def health() -> Health:
        return Health(
            version=version("scdr"),
            method=predictor.metadata.get("method"),
            items=len(predictor.item_ids),
            folds_in=predictor.folds_in,
        )

    @app.post("/predict")
    def predict(request: PredictRequest) -> Predictions:
        _at_most(limit.items, "items", request.items)
        found = predictor.predict(check_users(request.users), request.items)
        return Predictions(
            users=[
                UserPrediction(
                    ratings=one.ratings.tolist(),
                    known=one.known.tolist(),
                    answered_as=one.answered_as,
                )
                for one in found
            ]
        )

    @app.post("/recommend")
    def recommend(request: RecommendRequest) -> Recommendations:
        users = check_users(request.users)
        if request.k > limit.k:
            raise HTTPException(422, f"k: {request.k} is more than {limit.k}")
        for number, user in enumerate(request.users):
            _at_most(limit.history, f"users.{number}.exclude", user.exclude)
        found = predictor.recommend(users, request.k, [user.exclude for user in request.users])
        return Recommendations(
            users=[
                UserRecommendation(
                    items=one.items, ratings=one.ratings.tolist(), answered_as=one.answered_as
                )
                for one in found
            ]
        )

    return app


def _at_most(limit: int, name: str, values: Sized) -> None:
    if len(values) > limit:
        raise HTTPException(422, f"{name}: {len(values)} entries are more than {limit}")


class _BodyLimit:
    """Refuses a body of more than so many bytes, whatever its header says, without keeping it."""

    def __init__(self, app: Any, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.limit:
                raise HTTPException(413, f"the body is larger than {self.limit} bytes")
            return message

        await self.app(scope, limited, send)


async def _invalid(request: Request, error: Any) -> JSONResponse:
    """The first thing that is wrong with a request, as one line."""
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"][1:])
    message = problem["msg"].removeprefix("Value error, ")
    return JSONResponse({"error": f"{place}: {message}" if place else message}, 422)


async def _refused(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

"""`python -m scdr.serve`: a trained model over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import tyro
from annotated_types import Le

from scdr.commands import run_command
from scdr.hyperparameters import STRICT, Count, PositiveCount

if TYPE_CHECKING:
    import socket


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What to serve, where, and what a request may hold."""

    __pydantic_config__ = STRICT

    model: tyro.conf.Positional[str]
    """Run folder of scdr.train, or the model.safetensors in it."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: Annotated[Count, Le(65535)] = 8000
    """Port to listen at; 0 takes a free one."""
    threads: PositiveCount = 1
    """Cores that one request uses; requests run side by side."""
    max_body_bytes: PositiveCount = 8_000_000
    """Largest body."""
    max_users: PositiveCount = 1_000
    """Users in a request."""
    max_k: PositiveCount = 1_000
    """Items recommended to a user."""
    max_items: PositiveCount = 1_000
    """Items to predict."""
    max_history: PositiveCount = 10_000
    """Ratings in a history, and items to exclude for a user."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_serve, sys.argv[1:] if arguments is None else arguments)


def _serve(arguments: Sequence[str]) -> None:
    config = tyro.cli(
        ServeConfig,
        prog="python -m scdr.serve",
        description="Serve a trained model over HTTP: GET /health, POST /predict and /recommend.",
        args=list(arguments),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    from scdr.errors import InputError
    from scdr.options import checked

    config = checked(ServeConfig, asdict(config), where="command line")
    try:
        import uvicorn

        from scdr.serving.http import Limits, create_app
    except ModuleNotFoundError as error:
        raise InputError(
            f"the service needs {error.name}", fix="pip install 'scdr[serve]'"
        ) from error
    import torch

    from scdr.serving import Predictor

    with _listening(config) as listening:
        torch.set_num_threads(config.threads)
        limits = Limits(
            body_bytes=config.max_body_bytes,
            users=config.max_users,
            k=config.max_k,
            items=config.max_items,
            history=config.max_history,
        )
        app = create_app(Predictor.load(config.model), limits)
        host, port = listening.getsockname()[:2]
        print(f"Serving {config.model} at http://{host}:{port}, docs at /docs", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        server.run(sockets=[listening])


def _listening(config: ServeConfig) -> socket.socket:
    """A socket bound to the address.

    Raises:
        InputError: there is no such address, or another program listens there.
    """
    import socket

    from scdr.errors import InputError

    where = f"{config.host}:{config.port}"
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        # Only where the protocol is named does asyncio switch off Nagle's algorithm, which makes
        # an answer of two packets wait 40 ms.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((config.host, config.port))
        listening.listen()  # a request may come before the server takes it
    except OSError as error:
        raise InputError(
            f"can't listen: {error.strerror}", where=where, fix="give another --host or --port"
        ) from error
    return listening


if __name__ == "__main__":
    sys.exit(main())

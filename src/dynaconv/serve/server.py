"""The process: a socket, uvicorn, and signals."""

from __future__ import annotations

import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import uvicorn

from dynaconv.errors import RunError, UserError
from dynaconv.serve.app import make_app
from dynaconv.serve.service import Service

log = logging.getLogger(__name__)

IDLE = 15  # seconds for which a connection without a request is kept


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; before the network is loaded, because a port in use should be said at once.

    Raises:
        UserError: there is no such address, the port is in use or needs rights.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UserError(f"There is no address {host!r} to listen on: {error}.") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        reason = error.strerror or error
        raise UserError(
            f"Cannot listen on {host} port {port}: {reason}. Choose another with --port (0: a free one)."
        ) from error
    return made


def url_of(listening: socket.socket) -> str:
    """The address to open in a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn, which tells the service at once that it is to stop, and stops when the network cannot run."""

    def __init__(self, service: Service, started: Callable[[], None] = lambda: None) -> None:
        settings = service.settings
        _log_as("dynaconv")
        super().__init__(
            uvicorn.Config(
                make_app(service),
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=settings.access_log,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=IDLE,
                # Every request ends by itself: its body has `timeout`, and its prediction.
                timeout_graceful_shutdown=math.ceil(2 * settings.timeout) + 1,
            )
        )
        self._service, self._on_start = service, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()

    async def on_tick(self, counter: int) -> bool:
        stop = await super().on_tick(counter) or self._service.batcher.failure is not None
        self._service.stopping = self._service.stopping or stop
        return stop


def run(service: Service, listening: socket.socket, started: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT; requests that have begun are finished.

    Raises:
        KeyboardInterrupt: it was SIGINT.
        RunError: the network could not run its first batches.
    """
    server = Server(service, started)
    with closing(listening), _told_by_sigterm(server):
        server.run([listening])
    if service.batcher.failure is not None:
        raise RunError(f"The network cannot run: {service.batcher.failure}") from service.batcher.failure


def _log_as(name: str) -> None:
    """Let uvicorn log through the handlers of the logger of that name: its warnings, and requests."""
    for own, level in (("uvicorn.error", logging.WARNING), ("uvicorn.access", logging.INFO)):
        logger = logging.getLogger(own)
        logger.setLevel(level)
        logger.handlers = [*logging.getLogger(name).handlers]
        logger.propagate = not logger.handlers


@contextmanager
def _told_by_sigterm(server: uvicorn.Server) -> Iterator[None]:
    """SIGTERM stops the server, and nothing more.

    uvicorn has handlers of its own while it runs, and raises the signal that stopped it again when it has finished: as
    a rule the process then ends as killed. To end well after being told to is no failure. Before uvicorn has its
    handlers, this one is not deaf.
    """

    def stop(*_: Any) -> None:
        server.should_exit = True

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

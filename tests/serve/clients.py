"""A service in a thread of the test, on a free port, and what tests ask it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2

from dynaconv.serve.batching import Job
from dynaconv.serve.model import Served
from dynaconv.serve.server import Server, listen, url_of
from dynaconv.serve.service import Service
from dynaconv.serve.settings import ServeSettings

PATIENCE = 120.0  # seconds; a loaded machine is not a bug


class Running:
    """A service that listens; ``client`` knows its address."""

    def __init__(self, service: Service, client: httpx2.Client, server: Server) -> None:
        self.service, self.client, self.server = service, client, server

    def predict(self, *images: bytes, **fields: Any) -> httpx2.Response:
        """As a form with files."""
        files = [("images", (f"{number}.bin", content)) for number, content in enumerate(images)]
        return self.client.post("/predict", files=files, data={name: str(value) for name, value in fields.items()})


@contextmanager
def running(served: Served, ready: bool = True, **settings: Any) -> Iterator[Running]:
    """Serve in a thread; at the end the server is told to stop, and must."""
    service = Service(served, ServeSettings(port=0, **settings))
    listening, started = listen("127.0.0.1", 0), threading.Event()
    server = Server(service, started.set)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        assert started.wait(PATIENCE)
        with httpx2.Client(base_url=url_of(listening), timeout=PATIENCE, trust_env=False) as client:
            while ready and client.get("/healthz").status_code != 200:
                threading.Event().wait(0.02)
            yield Running(service, client, server)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listening.close()
    assert not thread.is_alive(), "the server does not stop"


class Held(Served):
    """A network whose batches wait for :attr:`go`, so that a test knows who is waiting."""

    def __init__(self, served: Served) -> None:
        self.__dict__.update(served.__dict__)
        self.go, self.began = threading.Event(), threading.Semaphore(0)
        self.batches: list[int] = []

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        self.batches.append(len(jobs))
        self.began.release()
        assert self.go.wait(PATIENCE)
        return super().run(jobs)

    def warm_up(self, max_batch: int) -> None:
        pass

"""A service that is full, slow, starting or stopping says so, and bodies that are too large are not taken in."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from starlette.requests import Request

from dynaconv.serve.batching import Job
from dynaconv.serve.model import Served
from dynaconv.serve.reading import Refused
from dynaconv.serve.service import Service
from dynaconv.serve.settings import ServeSettings
from serve.checkpoints import encoded, picture
from serve.clients import Held, Running, running

PICTURE = encoded(picture(0))


def until(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def test_full_is_429_with_a_time_and_room_comes_back(served: Served) -> None:
    held = Held(served)
    with running(held, max_batch=1, max_wait_ms=0, queue=3, max_images=3) as service, ThreadPoolExecutor(3) as clients:
        inside = [clients.submit(service.predict, PICTURE) for _ in range(3)]
        until(lambda: service.service.gate.inside == 3)
        refused = service.predict(PICTURE)
        assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (429, True)
        assert "full (3 of 3 images)" in refused.json()["detail"]
        assert service.client.get("/healthz").status_code == 200, "it is alive and well"
        held.go.set()
        assert [one.result().status_code for one in inside] == [200, 200, 200]
        assert service.service.gate.inside == 0
        assert service.predict(PICTURE, PICTURE, PICTURE).status_code == 200
        figures = service.client.get("/metrics").text
    assert 'dynaconv_requests_total{route="/predict",status="429"} 1.0' in figures
    assert "dynaconv_inside_images 0.0" in figures


def test_all_images_of_a_request_need_room(served: Served) -> None:
    held = Held(served)
    with running(held, queue=3, max_images=3, max_wait_ms=0) as service, ThreadPoolExecutor(1) as clients:
        one = clients.submit(service.predict, PICTURE)
        until(lambda: held.batches)
        assert service.predict(PICTURE, PICTURE, PICTURE).status_code == 429
        assert service.service.gate.inside == 1, "nothing of the refused request stays"
        held.go.set()
        assert one.result().status_code == 200


def test_bodies_together_are_bounded(served: Served) -> None:
    """Ten of the largest; one without a length counts as such."""
    with running(served, max_megabytes=0.05, queue=64) as service:
        place = service.client.base_url.host, service.client.base_url.port
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        slow = [socket.create_connection(place, timeout=60) for _ in range(10)]
        for one in slow:
            one.sendall(head + b"3\r\nabc\r\n")
        until(lambda: service.service.gate.inside == 10)
        refused = service.predict(PICTURE)
        assert (refused.status_code, "MB of bodies" in refused.text) == (429, True)
        for one in slow:
            one.close()
        until(lambda: service.service.gate.inside == 0)
        assert service.service.gate.bytes == 0
        assert service.predict(PICTURE).status_code == 200


def test_no_prediction_in_time_is_504_and_what_waited_is_dropped(served: Served) -> None:
    held = Held(served)
    with running(held, max_batch=1, max_wait_ms=0, timeout=0.5) as service, ThreadPoolExecutor(2) as clients:
        slow = [clients.submit(service.predict, PICTURE) for _ in range(2)]
        for one in slow:
            assert one.result().status_code == 504
            assert "within 0.5 s" in one.result().json()["detail"]
        assert service.service.gate.inside == 0
        held.go.set()
        until(lambda: service.service.batcher.waiting == 0)
        time.sleep(0.05)
        assert held.batches == [1], "the second was cancelled while it waited"


def test_who_reads_that_it_is_504_finds_its_jobs_cancelled(served: Served) -> None:
    """In one event loop, so that no thread's turn decides: the network may be free right after the response."""
    service = Service(Held(served), ServeSettings(port=0, timeout=0.5))
    submitted: list[Job] = []
    service.batcher.submit = submitted.extend  # type: ignore[method-assign,assignment]
    service.batcher.ready = True
    form = httpx2.Request("POST", "http://x/predict", files={"images": PICTURE})
    headers = [(name.lower(), value) for name, value in form.headers.raw]  # as a server hands them on
    scope = {"type": "http", "query_string": b"", "headers": headers}

    async def refused() -> bool:
        messages = iter([{"type": "http.request", "body": form.read()}])

        async def receive() -> dict[str, object]:
            for message in messages:
                return message
            await asyncio.Event().wait()
            raise AssertionError("the client stays")

        with pytest.raises(Refused, match="no prediction within"):
            await service.predict(Request(scope, receive))
        return [job.done.cancelled() for job in submitted] == [True]

    assert asyncio.run(refused())


def test_a_client_that_leaves_is_not_computed(served: Served) -> None:
    held = Held(served)
    with running(held, max_batch=1, max_wait_ms=0) as service, ThreadPoolExecutor(1) as clients:
        first = clients.submit(service.predict, PICTURE)
        until(lambda: held.batches)
        content = service.client.build_request("POST", "/predict", files={"images": PICTURE})
        body = content.read()
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {content.headers['content-type']}\r\n"
        with socket.create_connection((service.client.base_url.host, service.client.base_url.port)) as leaving:
            leaving.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            until(lambda: service.service.batcher.waiting == 1)
        until(lambda: service.service.gate.inside == 1)
        held.go.set()
        assert first.result().status_code == 200
        until(lambda: service.service.batcher.waiting == 0)
        assert held.batches == [1]


def test_not_ready_before_the_warm_up_and_not_while_it_stops(served: Served) -> None:
    class Warming(Held):
        def warm_up(self, max_batch: int) -> None:
            assert self.go.wait(60)

    warming = Warming(served)
    with running(warming, ready=False) as service:
        early = service.client.get("/healthz"), service.predict(PICTURE)
        assert [one.status_code for one in early] == [503, 503]
        assert (early[0].json()["status"], early[1].headers["retry-after"]) == ("starting", "1")
        assert service.client.get("/metrics").status_code == 200
        warming.go.set()
        until(lambda: service.client.get("/healthz").status_code == 200)
        assert service.predict(PICTURE).status_code == 200
        service.service.stopping = True
        assert service.client.get("/healthz").json() == {"status": "stopping"}
        assert service.predict(PICTURE).status_code == 503


def test_a_network_that_fails_is_500_for_its_image_alone(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Held):
        def run(self, jobs: object) -> list[object]:
            raise MemoryError("all gone")

    with running(Failing(served)) as service:
        response = service.predict(PICTURE)
        assert response.status_code == 500
        assert "all gone" not in response.text
        assert service.client.get("/healthz").status_code == 200
    assert "all gone" in caplog.text


def test_a_request_that_has_begun_is_finished(served: Served) -> None:
    held = Held(served)
    with ThreadPoolExecutor(1) as clients, running(held) as service:
        begun = clients.submit(service.predict, PICTURE)
        until(lambda: held.batches)
        service.server.should_exit = True
        until(lambda: service.service.stopping)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((service.client.base_url.host, service.client.base_url.port), timeout=60)
        held.go.set()
        assert begun.result().status_code == 200


@pytest.fixture(scope="module")
def small(served: Served) -> Iterator[Running]:
    with running(served, max_megabytes=0.05, max_images=2, timeout=2.0) as found:
        yield found


def pieces(size: int, step: int = 10_000) -> Iterator[bytes]:
    for _ in range(size // step):
        yield b"x" * step


@pytest.mark.parametrize("size", [60_000, 190_000])
def test_too_large_with_and_without_a_length(size: int, small: Running) -> None:
    kind = {"content-type": "application/json"}
    assert small.client.post("/predict", content=b"x" * size, headers=kind).status_code == 413
    assert small.client.post("/predict", content=pieces(size), headers=kind).status_code == 413
    assert small.predict(PICTURE).status_code == 200


def test_an_endless_body_is_cut_off(small: Running) -> None:
    """The service stops reading soon; how a client sees that depends on what it was doing."""
    sent = 0
    with socket.create_connection((small.client.base_url.host, small.client.base_url.port), timeout=60) as endless:
        endless.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while sent < 50_000_000:
                endless.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                sent += 0x10000
        except OSError:
            pass
    assert sent < 50_000_000
    assert small.predict(PICTURE).status_code == 200


def test_a_body_that_does_not_come_is_408(small: Running) -> None:
    with socket.create_connection((small.client.base_url.host, small.client.base_url.port), timeout=60) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        answer = slow.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")
    assert small.service.gate.inside == 0


def test_large_by_its_length_alone_is_refused_unread(small: Running) -> None:
    with socket.create_connection((small.client.base_url.host, small.client.base_url.port), timeout=60) as large:
        large.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\nExpect: 100-continue\r\n\r\n"
        )
        assert large.recv(4096).startswith(b"HTTP/1.1 413")


def test_places_are_given_back_whatever_happens(small: Running) -> None:
    for body in (b"", b"{", b'{"images": ["AAAA"]}', b'{"images": []}'):
        small.client.post("/predict", content=body, headers={"content-type": "application/json"})
    small.predict(PICTURE, PICTURE, PICTURE)
    small.predict(PICTURE, b"broken")
    assert (small.service.gate.inside, small.service.gate.bytes) == (0, 0)
    threads = [one.name for one in threading.enumerate() if one.name.startswith("dynaconv-network")]
    assert len(threads) >= 1

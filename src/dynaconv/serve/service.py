"""One service: the network's thread, the decoders, the limits, and what becomes of a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import Field
from starlette.requests import ClientDisconnect, Request

from dynaconv.data import BadImage, Frozen
from dynaconv.errors import UserError
from dynaconv.serve.admission import Gate, Places
from dynaconv.serve.batching import Batcher, Job
from dynaconv.serve.metrics import Metrics
from dynaconv.serve.model import Found, Served, check_options, is_finite
from dynaconv.serve.reading import Parsed, Refused, declared_length, parse, picture_of, read_body
from dynaconv.serve.settings import BODIES, ServeSettings

log = logging.getLogger(__name__)

CLIENT_GONE = 499  # what web servers log for a client that did not wait; nobody reads the response


class PredictOptions(Frozen):
    """What a client may choose, in the query, among the keys of the JSON, or as fields of the form.

    Attributes:
        top: classes or boxes at most, of an image.
        min_score: of the boxes that are returned.
        routing: return the routing weights of every router too.
    """

    top: int | None = Field(default=None, ge=1, le=100_000)
    min_score: float | None = Field(default=None, ge=0, le=1)
    routing: bool = False


class Service:
    """Everything between HTTP and the network."""

    def __init__(self, served: Served, settings: ServeSettings) -> None:
        self.served, self.settings = served, settings
        self.stopping = False
        self.gate = Gate(settings.queue, BODIES * settings.most_bytes)
        self.batcher = Batcher(
            served.run,
            max_batch=settings.max_batch,
            max_wait=settings.max_wait_ms / 1000,
            warm_up=lambda: served.warm_up(settings.max_batch),
            measured=self._measured,
        )
        self.metrics = Metrics(settings.max_batch, lambda: self.batcher.waiting, lambda: self.gate.inside)
        self._decoders = ThreadPoolExecutor(settings.decoders, thread_name_prefix="dynaconv-decoder")

    def start(self) -> None:
        self.batcher.start()

    def close(self) -> None:
        """Finish what waits, and stop the threads."""
        self.stopping = True
        self.batcher.close(self.settings.timeout)
        self._decoders.shutdown(wait=False, cancel_futures=True)

    @property
    def state(self) -> str:
        """``ready``; or ``starting``, ``stopping``, ``failed``: then nothing is predicted."""
        if self.batcher.failure is not None:
            return "failed"
        return "stopping" if self.stopping else "ready" if self.batcher.ready else "starting"

    async def predict(self, request: Request) -> dict[str, Any]:
        """The response to ``POST /predict``.

        Raises:
            Refused: with the status and the reason.
        """
        if self.state != "ready":
            raise Refused(503, f"the service is {self.state}", {"Retry-After": "1"})
        if request.headers.get("sec-fetch-site") == "cross-site":
            raise Refused(403, "a page of another site asks; this service is for its own page and for programs")
        with Places(self.gate) as places:
            places.take(1)  # before the body is read: a full service takes no memory
            places.hold(declared_length(request.headers.get("content-length"), self.settings.most_bytes))
            body = await self._body(request)
            work = asyncio.ensure_future(self._found(request, body, places))
            del body  # it is large; the task drops it when it is decoded
            gone = asyncio.ensure_future(_disconnected(request))
            try:
                await asyncio.wait({work, gone}, timeout=self.settings.timeout, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    return work.result()
                if gone.done():
                    raise Refused(CLIENT_GONE, "the client has closed the connection")
                raise Refused(504, f"no prediction within {self.settings.timeout:g} s")
            finally:
                work.cancel()
                gone.cancel()
                # Until the work has ended, its jobs still wait for the network. Who reads the response
                # must find them gone.
                await asyncio.wait({work})

    async def _body(self, request: Request) -> bytes:
        reading = read_body(request.stream(), request.headers.get("content-length"), self.settings.most_bytes)
        try:
            return await asyncio.wait_for(reading, self.settings.timeout)
        except (TimeoutError, asyncio.TimeoutError) as error:
            reason = f"the body did not arrive within {self.settings.timeout:g} s"
            raise Refused(408, reason, {"Connection": "close"}) from error
        except ClientDisconnect as error:
            raise Refused(CLIENT_GONE, "the client has closed the connection") from error

    async def _found(self, request: Request, body: bytes, places: Places) -> dict[str, Any]:
        kind = request.headers.get("content-type", "")
        parsed = await self._decode(parse, body, kind, self.settings.max_images)
        del body
        options = self._options(dict(request.query_params), parsed)
        places.take(len(parsed.images))
        asked = {name: getattr(options, name) for name in self.served.options if getattr(options, name) is not None}
        examples = await self._examples(parsed.images)
        parsed.images.clear()
        places.drop()
        jobs = [Job(example, asked, options.routing) for example in examples]
        try:
            self.batcher.submit(jobs)
        except RuntimeError as error:
            raise Refused(503, str(error), {"Retry-After": "1"}) from error
        try:
            found: Sequence[Found] = await asyncio.gather(*(asyncio.wrap_future(job.done) for job in jobs))
        except Exception as error:
            raise Refused(500, "the network failed on this request; the service's log says why") from error
        images = [self._plain(one) for one in found]
        if not is_finite(images):
            raise Refused(500, "the network returned infinite numbers or NaN")
        return {"images": images}

    def _plain(self, found: Found) -> dict[str, Any]:
        plain: dict[str, Any] = {self.served.task.predictions_key: found.predictions}
        return plain if found.routing is None else {**plain, "routing": found.routing}

    def _options(self, query: dict[str, str], parsed: Parsed) -> PredictOptions:
        given = {**query, **parsed.options}
        try:
            check_options({name: value for name, value in given.items() if name != "routing"}, self.served.options)
            return PredictOptions(**given)
        except UserError as error:
            raise Refused(422, str(error)) from error

    async def _examples(self, images: Sequence[bytes]) -> list[Any]:
        """Decode the images; all that are bad are named."""
        decoding = (self._decode(self._example, content) for content in images)
        made = await asyncio.gather(*decoding, return_exceptions=True)
        bad = [f"image {number}: {one.reason}" for number, one in enumerate(made) if isinstance(one, BadImage)]
        for one in made:
            if isinstance(one, BaseException) and not isinstance(one, BadImage):
                raise one
        if bad:
            raise Refused(422, "; ".join(bad))
        return made

    def _example(self, content: bytes) -> Any:
        return self.served.example(picture_of(content, self.settings.most_pixels))

    async def _decode(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)

    def _measured(self, images: int, seconds: float) -> None:
        self.metrics.batch(images, seconds)
        self.gate.learn(images, seconds)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

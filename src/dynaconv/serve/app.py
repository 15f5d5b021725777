"""The routes of the service, its OpenAPI description, and the headers of every response."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dynaconv.serve.metrics import CONTENT_TYPE, Metrics
from dynaconv.serve.reading import FORMATS, Refused
from dynaconv.serve.service import Service

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Of every response that does not set them itself. No header permits pages of other sites to read anything (CORS)."""


class Router(BaseModel):
    """Of one image: the weights of the experts by one router."""

    router: str = Field(description="The layer, or the block whose layers share the weights.")
    layers: list[str] = Field(description="The layers that are mixed with these weights.")
    weights: list[float] = Field(description="One for every expert.")


class Image(BaseModel):
    """What was found in one image. Which of the first three there is depends on the network's task."""

    classes: list[dict[str, Any]] | None = Field(default=None, description="Objects of class and probability.")
    boxes: list[dict[str, Any]] | None = Field(
        default=None, description="Objects of class, score, box [x1, y1, x2, y2]."
    )
    poses: list[dict[str, Any]] | None = Field(default=None, description="Objects of box, score and keypoints.")
    routing: list[Router] | None = Field(default=None, description="Only if it was asked for.")


class Prediction(BaseModel):
    """The images in the order in which they came."""

    images: list[Image]


class Problem(BaseModel):
    """What is wrong with a request."""

    detail: str


_OPTIONS: dict[str, Any] = {
    "top": {"type": "integer", "minimum": 1, "description": "Classes or boxes at most, of an image."},
    "min_score": {"type": "number", "minimum": 0, "maximum": 1, "description": "Of the boxes that are returned."},
    "routing": {"type": "boolean", "description": "Return the routing weights too."},
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}},
                        **_OPTIONS,
                    },
                }
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        **_OPTIONS,
                    },
                }
            },
        },
    },
    "parameters": [{"in": "query", "name": name, "schema": schema} for name, schema in _OPTIONS.items()],
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not what its type says."},
    413: {"model": Problem, "description": "Too large, or too many images."},
    415: {"model": Problem, "description": "Another type of body."},
    422: {"model": Problem, "description": "An image or an option cannot be used."},
    429: {"model": Problem, "description": "The service is full; see the header Retry-After."},
    503: {"model": Problem, "description": "The service is starting or stopping."},
    504: {"model": Problem, "description": "No prediction in time."},
}


def make_app(service: Service) -> ASGIApp:
    """The application: start it with its lifespan, which starts and closes ``service``."""
    from dynaconv import __version__

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.close()

    # FastAPI's pages of documentation load scripts from other servers; the description itself needs none.
    app = FastAPI(
        title="dynaconv",
        description=service.served.describe(),
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    page, policy = read_page()

    @app.exception_handler(Refused)
    async def refused(_: Request, problem: Refused) -> JSONResponse:
        return JSONResponse({"detail": problem.reason}, problem.status, problem.headers)

    @app.post("/predict", response_model=Prediction, responses=_PROBLEMS, openapi_extra=_BODY)
    async def predict(request: Request) -> Response:
        """Classes (or boxes, or poses) of one or several images, with the routing weights if they are asked for."""
        return JSONResponse(await service.predict(request))

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", responses={503: {"description": "Not ready, or stopping."}})
    async def healthz() -> Response:
        """200 when requests are served: after the warm-up, and until the service is told to stop."""
        return JSONResponse({"status": service.state}, 200 if service.state == "ready" else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    @app.get("/model")
    async def model() -> Response:
        """What is served, and its limits."""
        return JSONResponse(about(service))

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    return Guard(app, service.metrics, {route.path for route in app.routes if hasattr(route, "path")})


def about(service: Service) -> dict[str, Any]:
    """What ``/model`` returns."""
    served, settings = service.served, service.settings
    return {
        "name": served.name,
        "task": served.task.name,
        "predictions": served.task.predictions_key,
        "description": served.describe(),
        "classes": served.classes,
        "options": served.options,
        "routers": [{"router": name, "layers": layers} for name, layers in served.routers],
        "limits": {
            "bytes": settings.most_bytes,
            "pixels": settings.most_pixels,
            "images": settings.max_images,
            "formats": FORMATS,
        },
    }


def read_page() -> tuple[str, str]:
    """The page, and the policy that lets it run its own script and style and nothing else, and talk to this service."""
    page = files("dynaconv.serve").joinpath("page.html").read_text(encoding="utf-8")

    def digest(tag: str) -> str:
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    policy = (
        f"default-src 'none'; script-src {digest('script')}; style-src {digest('style')}; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


class Guard:
    """Around the application: counts and times every request, and adds :data:`HEADERS` to every response.

    Args:
        routes: the paths that are counted by name; any other is "other".
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: set[str]) -> None:
        self.app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.monotonic(), 500
        route = scope["path"] if scope["path"] in self._routes else "other"

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                known = {name.lower() for name, _ in message.get("headers", [])}
                more = [(n.lower().encode(), v.encode()) for n, v in HEADERS.items() if n.lower().encode() not in known]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        try:
            await self.app(scope, receive, with_headers)
        finally:
            self._metrics.request(route, status, time.monotonic() - start)

"""Figures of the service in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters of one service, in a registry of their own.

    Args:
        max_batch: the largest batch.
        waiting, inside: read whenever the figures are asked for.
    """

    def __init__(self, max_batch: int, waiting: Callable[[], int], inside: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "dynaconv_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "dynaconv_request_seconds",
            "From a request's headers to the end of its response.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.images = Counter("dynaconv_images", "Images that the network has seen.", registry=self.registry)
        sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if size < max_batch]
        self.batches = Histogram(
            "dynaconv_batch_images", "Images of a batch.", buckets=[*sizes, max_batch], registry=self.registry
        )
        self.batch_seconds = Histogram(
            "dynaconv_batch_seconds", "Seconds of a batch in the network.", buckets=SECONDS, registry=self.registry
        )
        for name, text, value in (
            ("dynaconv_queue_images", "Images that wait for the network.", waiting),
            ("dynaconv_inside_images", "Images in the service: decoded, waiting or computed.", inside),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)

    def batch(self, images: int, seconds: float) -> None:
        """Note one batch."""
        self.images.inc(images)
        self.batches.observe(images)
        self.batch_seconds.observe(seconds)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Note one request; ``route`` is one of the service's own, so that clients cannot invent labels."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)

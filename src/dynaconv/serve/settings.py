"""Settings of the service: its address, its limits, how requests are put into batches."""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from dynaconv.data import Frozen

MEGABYTE = 1_000_000
BODIES = 10  # of the largest size may be in memory at a time


class ServeSettings(Frozen):
    """What the service permits, and how long it waits.

    Attributes:
        host: address to listen on; ``127.0.0.1`` is reached from this machine alone.
        port: 0 takes a free one.
        max_batch: most images that the network sees at a time.
        max_wait_ms: how long the first image of a batch waits for others. Images that arrive while the network computes
            wait anyway and form the next batch, so 0 has batches too.
        queue: most images in the service at a time, decoded, waiting or computed. A request beyond is refused with the
            status 429.
        max_images: of one request.
        max_megabytes: of one request's body, 10^6 bytes each. Of bodies that are not decoded yet there may be ten times
            as much; then requests are refused with the status 429 too.
        max_megapixels: of one image, 10^6 pixels each.
        timeout: seconds for the body of a request to arrive (else 408), and for its prediction (else 504).
        decoders: threads that read requests and decode images.
        access_log: log every request.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_batch: int = Field(default=8, ge=1, le=1024)
    max_wait_ms: float = Field(default=0.0, ge=0, le=10_000)
    queue: int = Field(default=64, ge=1, le=100_000)
    max_images: int = Field(default=16, ge=1, le=10_000)
    max_megabytes: float = Field(default=20.0, gt=0, le=2000)
    max_megapixels: float = Field(default=50.0, gt=0, le=178)
    timeout: float = Field(default=30.0, gt=0, le=3600)
    decoders: int = Field(default=2, ge=1, le=64)
    access_log: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.max_images > self.queue:
            raise ValueError(
                f"max_images is {self.max_images} and queue {self.queue}: a request of that many images would always "
                "be refused; make the queue longer"
            )
        return self

    @property
    def most_bytes(self) -> int:
        """Of a body."""
        return int(self.max_megabytes * MEGABYTE)

    @property
    def most_pixels(self) -> int:
        """Of an image."""
        return int(self.max_megapixels * MEGABYTE)

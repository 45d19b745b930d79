"""A model behind HTTP: images in, JSON out, several requests computed at a time.

Starlette and uvicorn (extra `serve`); no torch where the model is an exported graph that needs
none.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import anyio
import numpy as np
from anyio.to_thread import run_sync
from numpy.typing import NDArray
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from detector.data.handling import AS_STORED, Decoding
from detector.data.images import PILLOW_LIMIT
from detector.data.images import pixels_of as decoded
from detector.errors import DataError
from detector.inference.calling import ImageModel, Threshold
from detector.inference.detections import Detections
from detector.inference.preprocess import decoding_of

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""What is decoded; Pillow knows many more, whose decoders nobody here needs."""

TYPES = ("image/", "application/octet-stream")
"""Beginnings of the content types that are read."""

DECODERS = 2
"""Images that are decoded at a time: each may take the memory of its pixels."""


@dataclass(frozen=True)
class Limits:
    """threshold, calibrated: as the model is called. batch_size: images that are computed together.
    wait: seconds that the first of them waits for others. queued: images that wait for the model;
    more are refused. megabytes, megapixels: of an image. seconds: that sending one may take.
    """

    threshold: Threshold = 0.3
    calibrated: bool = False
    batch_size: int = 8
    wait: float = 0.002
    queued: int = 64
    megabytes: float = 20.0
    megapixels: float = 50.0
    seconds: float = 30.0


class Refused(Exception):
    """A request that gets no detections, with the status that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class Metrics:
    """Counts since the start, in the words of Prometheus."""

    requests: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    images: int = 0
    batches: int = 0

    def text(self, queued: int) -> str:
        """The page that Prometheus reads."""
        lines = ["# TYPE detector_requests_total counter"]
        lines += [
            f'detector_requests_total{{status="{status}"}} {count}'
            for status, count in sorted(self.requests.items())
        ]
        for name, kind, value in (
            ("request_seconds_total", "counter", f"{self.seconds:.6f}"),
            ("images_total", "counter", self.images),
            ("batches_total", "counter", self.batches),
            ("queued_images", "gauge", queued),
        ):
            lines += [f"# TYPE detector_{name} {kind}", f"detector_{name} {value}"]
        return "\n".join(lines) + "\n"


Waiting = tuple[NDArray[np.uint8], "Future[Detections]"]


class Batcher:
    """Computes the images of several requests together, in a thread of its own.

    An engine uses all its threads for one call, so one call at a time is as fast as several.
    """

    def __init__(self, model: ImageModel, limits: Limits, metrics: Metrics) -> None:
        self.model, self.limits, self.metrics = model, limits, metrics
        self.waiting: queue.Queue[Waiting | None] = queue.Queue(limits.queued)
        self.thread = threading.Thread(target=self._work, name="batcher", daemon=True)

    def start(self) -> None:
        """Begins to compute."""
        self.thread.start()

    def stop(self) -> None:
        """Returns when all that waits is computed; nothing may be given any more."""
        self.waiting.put(None)
        self.thread.join()

    def give(self, pixels: NDArray[np.uint8]) -> Future[Detections]:
        """What is going to be found in (H, W, 3) pixels. Raises Refused where too many wait."""
        found: Future[Detections] = Future()
        try:
            self.waiting.put_nowait((pixels, found))
        except queue.Full:
            raise Refused(503, f"{self.limits.queued} images wait already; try later") from None
        return found

    def _work(self) -> None:
        while (first := self.waiting.get()) is not None:
            batch, ends = self._gather(first)
            self._compute(batch)
            if ends:
                return

    def _gather(self, first: Waiting) -> tuple[list[Waiting], bool]:
        """An image with those that come while it waits; whether the end was met."""
        batch, until = [first], time.monotonic() + self.limits.wait
        while len(batch) < self.limits.batch_size:
            try:
                more = self.waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if more is None:
                return batch, True
            batch.append(more)
        return batch, False

    def _compute(self, batch: list[Waiting]) -> None:
        self.metrics.batches += 1
        self.metrics.images += len(batch)
        try:
            every = self._call([pixels for pixels, _ in batch])
        except Exception as error:  # whatever it is, it is an answer and not the end of the thread
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for one in batch:  # so that an image that cannot be computed spoils no other
                self._compute([one])
            return
        for (_, future), found in zip(batch, every, strict=True):
            future.set_result(found)

    def _call(self, images: list[NDArray[np.uint8]]) -> list[Detections]:
        limits = self.limits
        return self.model(
            images,
            limits.threshold,
            calibrated=limits.calibrated,
            batch_size=limits.batch_size,
            max_megapixels=PILLOW_LIMIT,  # looked at before the pixels were there
        )


def service(model: ImageModel, limits: Limits = Limits()) -> Starlette:
    """POST /detect takes the bytes of an image and gives {"boxes", "scores", "labels",
    "category_ids", "width", "height"}, see `Detections.to_dict`; ?threshold=0.5 leaves out more.

    GET /health says whether it answers, GET /metrics counts for Prometheus. What is refused gets
    {"error": reason}: 400 no image or a wrong threshold, 408 sent too slowly, 413 too large, 415
    another content type, 422 an image that the model cannot compute, 503 too many at a time.
    """
    metrics = Metrics()
    batcher = Batcher(model, limits, metrics)
    how = decoding_of(model.config.data.options)  # as shown, unless trained on images as stored

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        decoders.append(anyio.CapacityLimiter(DECODERS))
        batcher.start()
        yield
        await run_sync(batcher.stop)

    decoders: list[anyio.CapacityLimiter] = []

    async def detect(request: Request) -> Response:
        began = time.perf_counter()
        try:
            response: Response = JSONResponse(await answer(request))
        except Refused as refused:
            response = JSONResponse({"error": str(refused)}, refused.status)
        except ClientDisconnect:
            response = Response(status_code=499)  # nobody reads it; nginx's word for the metrics
        except DataError as error:
            response = JSONResponse({"error": str(error)}, 422)
        metrics.requests[response.status_code] += 1
        metrics.seconds += time.perf_counter() - began
        return response

    async def answer(request: Request) -> dict[str, Any]:
        above = threshold_of(request, limits)
        content = await read(request, limits)
        pixels = await run_sync(image_of, content, limits, how, limiter=decoders[0])
        found = await asyncio.wrap_future(batcher.give(pixels))
        found = found.above(above) if above is not None else found
        return {**found.to_dict(), "width": pixels.shape[1], "height": pixels.shape[0]}

    async def health(_: Request) -> Response:
        is_well = batcher.thread.is_alive()
        body = {"status": "ok" if is_well else "stopped", "classes": list(model.classes)}
        return JSONResponse(body, 200 if is_well else 503)

    async def count(_: Request) -> Response:
        return PlainTextResponse(metrics.text(batcher.waiting.qsize()))

    routes: list[tuple[str, Callable[..., Any], str]] = [
        ("/detect", detect, "POST"),
        ("/health", health, "GET"),
        ("/metrics", count, "GET"),
    ]
    return Starlette(
        routes=[Route(path, function, methods=[method]) for path, function, method in routes],
        lifespan=lifespan,
    )


def threshold_of(request: Request, limits: Limits) -> float | None:
    """The request's own threshold. Raises Refused for one that gives nothing."""
    text = request.query_params.get("threshold")
    if text is None:
        return None
    least = 0.0 if isinstance(limits.threshold, str) else limits.threshold
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value < 1:
        raise Refused(400, f"threshold: {text[:40]!r} given, {least:g} to below 1 is allowed")
    return value


async def read(request: Request, limits: Limits) -> bytes:
    """The body. Raises Refused for another type, too many bytes or too slow a sender."""
    kind = request.headers.get("content-type", "application/octet-stream")
    if not kind.lower().startswith(TYPES):
        raise Refused(415, f"content-type: {kind[:80]!r} given, image/* is needed")
    most = int(limits.megabytes * 2**20)
    claimed = request.headers.get("content-length", "0")
    too_large = Refused(413, f"the image has more than {limits.megabytes:g} megabytes")
    if not claimed.isdigit() or int(claimed) > most:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise Refused(408, f"the image took more than {limits.seconds:g} seconds") from None
    return b"".join(parts)


def image_of(content: bytes, limits: Limits, how: Decoding = AS_STORED) -> NDArray[np.uint8]:
    """(H, W, 3) pixels. Raises Refused for what is no image, or one of too many pixels."""
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise Refused(413, f"the image has more than {limits.megapixels:g} megapixels") from None
    except Exception:  # of many kinds, by the format
        known = ", ".join(FORMATS)
        raise Refused(400, f"not an image; {known} are read") from None
    if image.width * image.height > limits.megapixels * 1e6:
        raise Refused(
            413,
            f"{image.width} x {image.height} given, the image has more than "
            f"{limits.megapixels:g} megapixels",
        )
    try:
        return decoded(image, "image", PILLOW_LIMIT, how=how, key="megapixels").copy()
    except DataError as error:
        raise Refused(400, str(error)) from None

"""Answers over HTTP: `detector serve checkpoint=mine.onnx`."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Annotated, Literal

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked
from detector.config.ranges import AtLeast, Between, require_ranges
from detector.config.schema import require
from detector.errors import ConfigError
from detector.inference.load import is_graph, load


@dataclass(frozen=True)
class ServeConfig:
    """One call of `tools/serve.py`. See `configs/serve.yaml` for what each key means."""

    checkpoint: str
    host: str = "127.0.0.1"
    port: Annotated[int, Between(0, 65536, is_below=True)] = 8000
    threshold: float | Literal["auto"] = 0.3
    calibrated: bool = False
    batch_size: Annotated[int, AtLeast(1)] = 8
    wait_ms: Annotated[float, AtLeast(0)] = 2.0
    max_queue: Annotated[int, AtLeast(1)] = 64
    max_megabytes: float = 20.0
    max_megapixels: float = 50.0
    timeout: float = 30.0
    device: str = "auto"
    precision: str | None = None
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_ranges(self)
        for key in ("max_megabytes", "max_megapixels", "timeout"):
            value = getattr(self, key)
            require(0 < value < float("inf"), f"{key}: {value} given, above 0 is needed")
        is_known = self.threshold == "auto" or 0 <= self.threshold < 1
        require(is_known, f"threshold: {self.threshold} given, 0 to below 1 is allowed, or auto")


def run(node: DictConfig) -> None:
    """Answers until it is told to stop (SIGTERM, SIGINT), and finishes what it has begun."""
    options = checked(ServeConfig, node)
    try:
        import uvicorn

        from detector.inference.serve import Limits, service
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is needed to serve: pip install 'dense-detector[serve]'"
        ) from None
    if not is_graph(options.checkpoint):
        from detector.cli.options import start

        start(options.plugins)
    model = load(
        options.checkpoint,
        device=options.device,
        precision=options.precision,
        plugins=options.plugins,
    )
    if options.calibrated or options.threshold == "auto":
        model.require_calibration()
    limits = Limits(
        threshold=options.threshold,
        calibrated=options.calibrated,
        batch_size=options.batch_size,
        wait=options.wait_ms / 1000,
        queued=options.max_queue,
        megabytes=options.max_megabytes,
        megapixels=options.max_megapixels,
        seconds=options.timeout,
    )
    listening = listen(options.host, options.port)
    host, port = listening.getsockname()[:2]
    print(f"{model.source} answers on http://{host}:{port}/detect", flush=True)
    config = uvicorn.Config(
        service(model, limits),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(options.timeout) + 1,
    )
    uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket of that address. Raises ConfigError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(f"host: {host}, port: {port} cannot be had: {reason}") from None


def main() -> None:
    hydra_app.main("serve", run)

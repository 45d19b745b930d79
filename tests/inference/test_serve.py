"""A model behind HTTP, asked by a real client: what comes back, what is refused, how it stops."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import detector
from detector.config import from_plain
from detector.inference.calling import ImageModel
from tests.commands import ROOT, Command
from tests.training.tiny import go, tiny

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from detector.inference.serve import Limits, service  # noqa: E402  needs them

JPEG = {"content-type": "image/jpeg"}


class Sizes(ImageModel):
    """Finds one box, as large as the image; takes its time."""

    classes, category_ids, calibration, source = ("a",), (1,), None, "sizes"
    config = from_plain(tiny(Path("unused")))

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.batches = seconds, list[int]()

    def detect_pixels(self, images: Any, score_threshold: float, batch_size: int) -> Any:
        self.batches.append(len(images))
        time.sleep(self.seconds)
        if any(image.shape[0] == 13 for image in images):
            raise ValueError("13")
        return [
            detector.Detections(
                np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32),
                np.array([0.5], np.float32), np.array([0]), self.classes, self.category_ids,
            )
            for image in images
        ]  # fmt: skip


@contextmanager
def serving(model: ImageModel, **limits: Any) -> Iterator[int]:
    """The port of a service in this process."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(service(model, Limits(**limits)), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def ask(
    port: int,
    body: Any,
    path: str = "/detect",
    headers: dict[str, str] = JPEG,
    method: str = "POST",
) -> tuple[int, Any]:
    """The status and the JSON, or text, of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read().decode()
        is_json = response.headers.get("content-type") == "application/json"
        return response.status, json.loads(content) if is_json else content
    finally:
        connection.close()


def image(height: int, width: int, seed: int = 0, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def huge(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


BROKEN = [
    (b"<html>", JPEG, 400),
    (b"", JPEG, 400),
    (image(40, 50)[:300], JPEG, 400),
    (huge(20_000), JPEG, 413),
    (image(40, 50), {"content-type": "text/html"}, 415),
]
"""Bodies, headers and the status of what is refused: no image, nothing, half of one, 400 MP, a
type."""


def test_an_image_gets_its_detections() -> None:
    with serving(Sizes()) as port:
        status, answer = ask(port, image(40, 50))
        assert status == 200
        assert answer == {
            "boxes": [[0.0, 0.0, 50.0, 40.0]], "scores": [0.5], "labels": ["a"],
            "category_ids": [1], "width": 50, "height": 40,
        }  # fmt: skip
        assert ask(port, image(40, 50), "/detect?threshold=0.6")[1]["boxes"] == []
        assert ask(port, None, "/health", {}, "GET") == (200, {"status": "ok", "classes": ["a"]})


def test_what_is_broken_is_refused_with_a_reason_and_counted() -> None:
    with serving(Sizes(), megabytes=0.05) as port:
        for body, headers, expected in BROKEN:
            status, answer = ask(port, body, headers=headers)
            assert status == expected, answer
            assert "\n" not in answer["error"]
        assert ask(port, image(200, 200))[0] == 413  # 120 kB, as it says of itself
        pieces = iter([image(200, 200)])
        assert ask(port, pieces)[0] == 413  # the same, and it does not say how much
        for text in ("0.2", "1", "nan", "high"):
            status, answer = ask(port, image(4, 5), f"/detect?threshold={text}")
            assert (status, answer["error"]) == (
                400, f"threshold: '{text}' given, 0.3 to below 1 is allowed",
            )  # fmt: skip
        assert ask(port, None, "/detect", {}, "GET")[0] == 405
        assert ask(port, None, "/etc/passwd", {}, "GET")[0] == 404
        lines = ask(port, None, "/metrics", {}, "GET")[1].splitlines()
        for status, count in ((400, 7), (413, 3), (415, 1)):
            assert f'detector_requests_total{{status="{status}"}} {count}' in lines
        assert "detector_images_total 0" in lines


def test_requests_at_a_time_are_computed_together() -> None:
    model = Sizes(seconds=0.05)
    with serving(model, batch_size=4, wait=0.05) as port, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda i: ask(port, image(20 + i, 30)), range(12)))
    assert [answer["height"] for _, answer in answers] == [*range(20, 32)]
    assert [answer["boxes"][0][3] for _, answer in answers] == [*range(20, 32)]
    assert sum(model.batches) == 12
    assert 1 < max(model.batches) <= 4


def test_an_image_that_cannot_be_computed_spoils_no_other() -> None:
    with serving(Sizes(), batch_size=8, wait=0.2) as port, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda side: ask(port, image(side, 30)), (13, 20, 21, 22)))
        assert [status for status, _ in answers] == [500, 200, 200, 200]
        assert ask(port, image(20, 30))[0] == 200


def test_more_than_can_wait_are_told_to_come_later() -> None:
    model = Sizes(seconds=0.5)
    with serving(model, batch_size=1, queued=1) as port, ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: ask(port, image(20, 30))[0], range(8)))
    assert set(statuses) == {200, 503}


def test_a_sender_that_takes_too_long_is_let_go() -> None:
    with serving(Sizes(), seconds=0.2) as port, socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(b"POST /detect HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc")
        assert s.recv(1000).startswith(b"HTTP/1.1 408")
        assert ask(port, image(20, 30))[0] == 200


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return go(tiny(tmp_path_factory.mktemp("serve") / "run", steps=2)) / "checkpoints" / "last.pt"


@contextmanager
def process(
    checkpoint: Path, *words: str, python: str | Path = sys.executable, root: Path = ROOT
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command in a process of its own, and the port that it has printed."""
    argv = ["-m", "detector.cli", "serve", f"checkpoint={checkpoint}", "port=0", *words]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [str(python), *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment, cwd=checkpoint.parent,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert "answers on http://127.0.0.1:" in line, line + server.stdout.read()
        yield server, int(line.rpartition(":")[2].partition("/")[0])
    finally:
        server.kill()
        server.wait(30)


def memory(pid: int) -> int:
    """Bytes that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def load(checkpoint: Path, count: int) -> None:
    """Requests of eight clients, every twentieth broken: each gets its own answer."""
    model = detector.load(checkpoint, device="cpu")
    kinds = [(image(30 + 7 * i, 60, i, kind), kind) for i in range(4) for kind in ("PNG", "JPEG")]
    expected = [
        model(Image.open(io.BytesIO(content)), threshold=0.01).to_dict() for content, _ in kinds
    ]
    assert all(len(one["scores"]) > 0 for one in expected)

    def one(i: int) -> None:
        if i % 20 == 0:
            body, headers, status = BROKEN[i // 20 % len(BROKEN)]
            assert ask(port, body, headers=headers)[0] == status
            return
        status, answer = ask(port, kinds[i % len(kinds)][0])
        wanted = expected[i % len(kinds)]
        assert status == 200, answer
        assert answer["labels"] == wanted["labels"]
        np.testing.assert_allclose(answer["scores"], wanted["scores"], atol=1e-5)
        np.testing.assert_allclose(answer["boxes"], wanted["boxes"], atol=1e-2)

    with (
        process(checkpoint, "threshold=0.01", "device=cpu") as (server, port),
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(one, range(count // 5)))
        before = memory(server.pid)
        list(pool.map(one, range(count // 5, count)))
        assert server.poll() is None
        grown = memory(server.pid) - before
        lines = ask(port, None, "/metrics", {}, "GET")[1].splitlines()
        broken = len(range(0, count, 20))
        assert f'detector_requests_total{{status="200"}} {count - broken}' in lines
        assert f"detector_images_total {count - broken}" in lines
        # A copy of every image kept would be ten times as much at 10,000 requests.
        assert grown < 32 * 2**20, grown


def test_200_requests_of_which_ten_are_broken_get_the_answers_of_the_predictor(
    checkpoint: Path,
) -> None:
    load(checkpoint, 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_10000_requests_of_which_500_are_broken_get_the_answers_of_the_predictor(
    checkpoint: Path,
) -> None:
    load(checkpoint, 10_000)


def test_sigterm_finishes_what_is_under_way(checkpoint: Path) -> None:
    """The body of a request is half there when the signal comes; its answer is the usual one."""
    body = image(40, 60)
    with process(checkpoint, "threshold=0.01", "device=cpu") as (server, port):
        expected = ask(port, body)[1]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = f"POST /detect HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:1000])
            time.sleep(0.3)
            server.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(body[1000:])
            answer = b""
            while part := connection.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == expected
        assert server.wait(30) in (0, -signal.SIGTERM)  # uvicorn passes the signal on at the end
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_a_mistake_is_answered_in_one_line(command: Command, checkpoint: Path) -> None:
    given = f"checkpoint={checkpoint}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = command("serve", given, f"port={port}", "device=cpu").message
        assert message == f"host: 127.0.0.1, port: {port} cannot be had: Address already in use"
    assert "has no calibrator" in command("serve", given, "threshold=auto", "device=cpu").message
    assert command("serve", given, "port=99999").message.startswith("port: 99999 given")
    assert command("serve", given, "timeout=0").message == "timeout: 0.0 given, above 0 is needed"


def test_an_image_that_exif_turns_is_taken_as_it_is_shown() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    Image.new("RGB", (50, 40)).save(content, format="JPEG", exif=exif)
    with serving(Sizes()) as port:
        status, answer = ask(port, content.getvalue())
        assert status == 200
        assert answer["boxes"] == [[0.0, 0.0, 40.0, 50.0]]
        assert (answer["width"], answer["height"]) == (40, 50)

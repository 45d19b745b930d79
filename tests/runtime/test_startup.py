from __future__ import annotations

import ctypes
import importlib
import platform
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision

from detector.errors import ConfigError
from detector.runtime import startup
from detector.runtime.startup import CURE, check_versions, keep_freed_memory


def install(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    """`import NAME` gives the module stated, or raises the exception stated."""

    def import_module(name: str) -> Any:
        module = modules.get(name, {"torch": torch, "torchvision": torchvision}[name])
        if isinstance(module, Exception):
            raise module
        return module

    monkeypatch.setattr(importlib, "import_module", import_module)


def message() -> str:
    with pytest.raises(ConfigError) as caught:
        check_versions()
    assert caught.value.exit_code == 2
    return str(caught.value)


def torchvision_whose_nms(result: Any) -> Any:
    def nms(*args: Any) -> torch.Tensor:
        if isinstance(result, Exception):
            raise result
        return torch.tensor(result)

    return SimpleNamespace(__version__="0.25.0", ops=SimpleNamespace(nms=nms))


def test_the_installed_libraries_pass() -> None:
    check_versions()


@pytest.mark.parametrize("version", ["2.9.1", "2.9.0+cpu", "1.13.1", "2.9.0a0+git1234567"])
def test_a_torch_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(monkeypatch, torch=SimpleNamespace(__version__=version))
    assert message() == f"torch {version}: 2.10 or newer is needed; {CURE}"


@pytest.mark.parametrize("version", ["2.10.0", "2.15.0+cu130", "3.0.0.dev20270101"])
def test_a_newer_torch_is_not_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    newer = SimpleNamespace(__version__=version, tensor=torch.tensor)
    install(monkeypatch, torch=newer)
    check_versions()


@pytest.mark.parametrize("name", ["torch", "torchvision"])
@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'torch'"),
        OSError("libc10.so: cannot open shared object file"),
        RuntimeError("operator torchvision::nms does not exist"),
        AttributeError("partially initialized module 'torchvision' has no attribute 'extension'"),
    ],
)
def test_a_failing_import_is_one_line_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    install(monkeypatch, **{name: error})
    assert message() == f"{name} cannot be imported ({error}); {CURE}"


def test_a_missing_operator_is_one_line_with_both_versions_and_the_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = RuntimeError("Couldn't load custom C++ ops.\n  This can happen if ...\n  and so on")
    install(monkeypatch, torchvision=torchvision_whose_nms(error))
    assert message() == (
        f"torch {torch.__version__} and torchvision 0.25.0 do not fit together "
        f"(Couldn't load custom C++ ops.); {CURE}"
    )


def test_an_operator_that_gives_a_wrong_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, torchvision=torchvision_whose_nms([1, 0]))
    assert "nms kept [1, 0], [1] is right" in message()


def test_an_error_without_words_is_named_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, torchvision=ImportError())
    assert "torchvision cannot be imported (ImportError)" in message()


def test_the_cure_is_a_command_for_both_libraries() -> None:
    assert startup.CURE.endswith("pip install --upgrade torch torchvision")


def page_faults(first_line: str) -> int:
    """Of filling a block of 64 MiB twenty times, in a process that begins with `first_line`."""
    code = (
        "import resource, torch\n"
        "from detector.runtime.startup import keep_freed_memory\n"
        f"{first_line}\n"
        "for _ in range(20): torch.ones(2**24)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to")
def test_freed_memory_is_kept_for_the_next_use() -> None:
    start = page_faults("raise SystemExit(print(resource.getrusage(0).ru_minflt))")
    given_back = page_faults("") - start
    kept = page_faults("assert keep_freed_memory()") - start
    # All blocks but a few, which do not fit where the ones before them lay.
    assert kept < given_back / 2


def test_a_system_without_glibc_goes_on_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert keep_freed_memory() is False

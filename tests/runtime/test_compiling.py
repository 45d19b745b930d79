"""What is compiled is counted, and a machine that cannot compile says so in a line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from detector.errors import ConfigError
from detector.runtime import compiling
from detector.runtime.compiling import Compilations, compilations, compiled, require_compiler

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No code that another test has compiled, and no compiler either: graphs run as they are."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def doubled(x: torch.Tensor) -> torch.Tensor:
    return 2 * x.sin()


def test_each_shape_is_compiled_once_and_the_second_is_named_as_a_recompilation() -> None:
    before = compilations()
    function = compiled(doubled)
    for size in (3, 4, 3, 4):
        assert torch.equal(function(torch.ones(size)), 2 * torch.ones(size).sin())
    done = compilations() - before
    assert (done.graphs, done.recompiles, done.breaks) == (2, 1, 0)
    (reason,) = done.reasons
    assert reason.startswith("doubled: ")
    assert "size mismatch" in reason


def test_a_break_is_counted_with_its_reason() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        x = x.sin()
        torch._dynamo.graph_break()
        return x.cos()

    before = compilations()
    compiled(broken)(torch.ones(3))
    done = compilations() - before
    assert (done.graphs, done.breaks) == (2, 1)
    assert "graph_break" in done.reasons[0]


def test_more_shapes_than_are_kept_end_a_run_in_place_of_going_on_uncompiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "MOST_VARIANTS", 2)
    function = compiled(doubled)
    for size in (3, 4):
        function(torch.ones(size))
    with pytest.raises(ConfigError, match=r"^compile: doubled was compiled for 2 kinds"):
        function(torch.ones(5))


@pytest.mark.parametrize("mode", ["loss", "model", "step"])
def test_without_a_compiler_one_line_names_the_key(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=rf"^compile: {mode} given, but a C\+\+ compiler .* off"):
        require_compiler(mode, CPU)
    require_compiler("off", CPU)


def test_a_compiler_that_cxx_names_and_is_not_there_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"^compile: loss given"):
        require_compiler("loss", CPU)


def test_differences_are_taken_number_by_number_and_their_words_are_the_later_ones() -> None:
    before = Compilations(graphs=2, recompiles=1, breaks=1, reasons=("a", "b"))
    after = Compilations(3, 1, 2, 4, 5, ("a", "b", "c"))
    done = after - before
    assert done.facts() == {
        "compiled_graphs": 1,
        "recompiles": 0,
        "graph_breaks": 1,
        "cuda_graphs": 4,
        "cuda_graphs_skipped": 5,
    }
    assert done.reasons == ("c",)

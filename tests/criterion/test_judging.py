"""Terms and gradient by one compiled function: the same as by autograd, and one graph it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from detector.config import Ramp
from detector.config.registry import BOX_LOSSES, LOSSES
from detector.criterion import Criterion
from detector.criterion.ramps import Ramps
from detector.runtime import compiling
from detector.runtime.compiling import Compilations, compilations, compiled
from detector.structures import Predictions, Targets
from tests.synthetic import make_anchors, make_predictions, make_targets

CLASSES = 3
ONE = torch.ones(())
SEPARABLE = [name for name in LOSSES.names if LOSSES.get(name).separable]


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No code that another test has compiled, and no compiler either: what torch breaks or compiles
    anew is decided before a backend sees it."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def pair(loss: str, box_loss: str = "smooth_l1") -> tuple[Criterion, Criterion]:
    """The same criterion twice, the second one compiled."""
    plain, fast = (Criterion.build(CLASSES, loss=loss, box_loss=box_loss) for _ in range(2))
    assert fast.compile_by(compiled) == plain.loss.separable
    return plain, fast


def judged(
    criterion: Criterion, outputs: Predictions, targets: Targets, scale: torch.Tensor = ONE
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Terms, and the gradients by logits and deltas."""
    leaves = [x.detach().clone().requires_grad_() for x in (outputs.logits, outputs.deltas)]
    predictions = replace(outputs, logits=leaves[0], deltas=leaves[1])
    matches = criterion.match(predictions.anchors, targets, predictions)
    positives = criterion.positives([matches], [targets])
    found = criterion.judge(predictions, matches, positives, scale)
    assert all(not term.requires_grad for term in found.terms.values())
    found.backward()
    logits, deltas = (x.grad for x in leaves)
    assert logits is not None
    return found.terms, logits, torch.zeros_like(leaves[1]) if deltas is None else deltas


def assert_equal(plain: Criterion, fast: Criterion, dtype: torch.dtype, steps: int = 2) -> None:
    """Bit for bit, since a graph that runs as it is does the same operations."""
    for seed in range(steps):
        targets = make_targets([2, 1], CLASSES, seed)
        outputs = make_predictions(plain.layout, make_anchors(), 2, seed=seed, dtype=dtype)
        one, other = (judged(criterion, outputs, targets) for criterion in (plain, fast))
        assert one[0].keys() == other[0].keys()
        for name, term in one[0].items():
            assert torch.equal(term, other[0][name]), name
        for a, b in zip(one[1:], other[1:], strict=True):
            assert a.abs().sum() > 0
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)  # sums in another order


@pytest.mark.parametrize("name", SEPARABLE)
def test_a_separable_loss_and_its_gradient_are_one_graph_for_all_steps(name: str) -> None:
    before = compilations()
    assert_equal(*pair(name), torch.bfloat16)
    done = compilations() - before
    assert (done.graphs, done.recompiles, done.breaks) == (1, 0, 0), done.reasons


@pytest.mark.parametrize("name", BOX_LOSSES.names)
def test_a_box_loss_is_in_the_same_graph(name: str) -> None:
    before = compilations()
    assert_equal(*pair("focal", name), torch.float32)
    done = compilations() - before
    assert (done.graphs, done.recompiles, done.breaks) == (1, 0, 0), done.reasons


@pytest.mark.parametrize("name", [name for name in LOSSES.names if name not in SEPARABLE])
def test_a_loss_that_is_no_sum_over_anchors_is_not_compiled(name: str) -> None:
    before = compilations()
    assert_equal(*pair(name), torch.float32, steps=1)
    assert compilations() - before == Compilations()


def test_the_number_of_objects_is_no_reason_to_compile_anew() -> None:
    _, fast = pair("focal")
    before = compilations()
    for counts in ([2, 1], [5, 0], [9, 9]):
        outputs = make_predictions(fast.layout, make_anchors(), 2)
        judged(fast, outputs, make_targets(counts, CLASSES))
    assert (compilations() - before).graphs == 1


def test_the_gradient_is_scaled_before_it_is_rounded_to_half_precision() -> None:
    """A slope of 6e-8 x 1e-3 is 0 in float16; scaled by 2^16 it is not."""
    _, fast = pair("focal")
    targets = make_targets([1, 1], CLASSES)
    outputs = make_predictions(fast.layout, make_anchors(), 2)
    small = replace(outputs, logits=torch.full_like(outputs.logits, -7).half())
    found = judged(fast, small, targets, torch.tensor(2.0**16))[1]
    exact = judged(fast, replace(small, logits=small.logits.double()), targets)[1]
    background = (exact > 0) & (exact < 2.0**-25)
    assert background.any()
    torch.testing.assert_close(
        found[background].double() / 2.0**16, exact[background], rtol=1e-3, atol=0
    )


def test_a_factor_that_rises_over_a_run_is_no_constant_of_the_code() -> None:
    _, fast = pair("focal")
    fast.ramps = Ramps((Ramp("loss.weight", 1.0, 3.0),), {"loss": 1.0, "box_loss": 1.0})
    outputs, targets = make_predictions(fast.layout, make_anchors(), 1), make_targets([2], CLASSES)
    before = compilations()
    found = []
    for share in (0.0, 0.5, 1.0):
        fast.progress(share)
        found.append(judged(fast, outputs, targets)[0]["loss_class"].item())
    assert found == pytest.approx([found[0], 2 * found[0], 3 * found[0]], rel=1e-6)
    assert (compilations() - before).graphs == 1

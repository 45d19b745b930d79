"""Post-processing against small cases by hand and an independent loop."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from detector.config.model import PostprocessConfig
from detector.errors import DivergedError
from detector.layouts import Layout, Sigmoid, Softmax
from detector.models.coder import BoxCoder
from detector.models.postprocess import pack, postprocess
from detector.structures import Anchors, Batch, DetectionTensors, Predictions


def make_batch(
    num: int, size: tuple[int, int] = (100, 100), scale: tuple[float, float] = (1, 1)
) -> Batch:
    images = torch.zeros(num, 3, 128, 128, dtype=torch.uint8)
    return Batch(
        images, torch.tensor([size] * num), torch.tensor([scale] * num), tuple(range(1, num + 1))
    )


def boxes_as_anchors(boxes: list[list[float]], levels: tuple[int, ...] | None = None) -> Anchors:
    return Anchors(torch.tensor(boxes), torch.full((len(boxes),), 8.0), levels or (len(boxes),))


def detect(
    anchors: Anchors, scores: list[list[float]], batch: Batch | None = None, **options: float
) -> DetectionTensors:
    """Detections of one image whose boxes are the anchors, with sigmoid scores (A, K)."""
    logits = torch.tensor([scores], dtype=torch.float64).logit()
    deltas = torch.zeros(1, len(scores), 4)
    predictions = Predictions(logits, deltas, anchors, BoxCoder())
    config = PostprocessConfig(**options)  # type: ignore[arg-type]
    return postprocess(predictions, Sigmoid(len(scores[0])), batch or make_batch(1), config)[0]


APART = boxes_as_anchors([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])


def test_detections_come_by_falling_score() -> None:
    found = detect(APART, [[0.2], [0.9], [0.5], [0.7]])
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.5, 0.2])
    assert found.boxes[:, 0].tolist() == [20, 60, 40, 0]
    assert found.labels.tolist() == [0, 0, 0, 0]


def test_equal_scores_come_in_the_order_of_anchors_and_classes() -> None:
    found = detect(APART, [[0.5, 0.5], [0.5, 0.5], [0.25, 0.75], [0.5, 0.25]])
    assert found.labels.tolist() == [1, 0, 1, 0, 1, 0, 0, 1]
    assert found.boxes[:, 0].tolist() == [40, 0, 0, 20, 20, 60, 40, 60]


def test_the_order_of_many_equal_scores_is_that_of_their_anchors() -> None:
    # More than 1,000 boxes, which torchvision takes class by class and sorts again.
    corners = [(float(4 * (i % 40)), float(4 * (i // 40))) for i in range(1600)]
    anchors = boxes_as_anchors([[x, y, x + 3, y + 3] for x, y in corners])
    found = detect(
        anchors,
        [[0.5]] * 1600,
        make_batch(1, size=(160, 160)),
        topk_per_level=1600,
        detections_per_image=1600,
    )
    assert torch.equal(found.boxes, anchors.boxes)


def test_a_score_must_be_above_the_threshold_and_0_cuts_nothing() -> None:
    scores = [[0.0], [0.5], [0.25], [0.75]]
    assert len(detect(APART, scores, score_threshold=0.5).scores) == 1
    assert len(detect(APART, scores, score_threshold=0.3).scores) == 2
    assert len(detect(APART, scores, score_threshold=0.0).scores) == 4


def test_of_overlapping_boxes_of_a_class_the_best_stays() -> None:
    # IoU of the first two 9 / 11, of the first and the third 5 / 15.
    anchors = boxes_as_anchors([[0, 0, 10, 10], [1, 0, 11, 10], [5, 0, 15, 10]])
    found = detect(anchors, [[0.8], [0.9], [0.7]])
    assert found.boxes[:, 0].tolist() == [1, 5]
    assert len(detect(anchors, [[0.8], [0.9], [0.7]], nms_iou=0.9).scores) == 3


def test_an_iou_equal_to_the_threshold_is_allowed() -> None:
    # 8 / 16.
    anchors = boxes_as_anchors([[0, 0, 12, 1], [4, 0, 16, 1]])
    assert len(detect(anchors, [[0.9], [0.8]], nms_iou=0.5).scores) == 2


def test_classes_do_not_suppress_one_another() -> None:
    anchors = boxes_as_anchors([[0, 0, 10, 10], [0, 0, 10, 10]])
    found = detect(anchors, [[0.9, 0.1], [0.2, 0.8]])
    assert found.labels.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])


def test_each_level_has_its_own_top_k_of_pairs() -> None:
    anchors = boxes_as_anchors(APART.boxes.tolist(), (3, 1))
    found = detect(anchors, [[0.9, 0.8], [0.7, 0.6], [0.95, 0.5], [0.1, 0.2]], topk_per_level=2)
    assert found.scores.tolist() == pytest.approx([0.95, 0.9, 0.2, 0.1])


def test_the_best_of_an_image_are_kept() -> None:
    found = detect(APART, [[0.2], [0.9], [0.5], [0.7]], detections_per_image=2)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])


def test_boxes_are_clipped_and_brought_to_the_pixels_of_the_file() -> None:
    anchors = boxes_as_anchors([[-10, 20, 200, 90]])
    found = detect(anchors, [[0.9]], make_batch(1, size=(60, 100), scale=(0.5, 2.0)))
    assert found.boxes.tolist() == [[0, 40, 50, 120]]


def test_boxes_without_area_in_the_image_are_dropped() -> None:
    anchors = boxes_as_anchors([[110, 0, 130, 10], [0, -20, 10, 0], [0, 0, 10, 10]])
    found = detect(anchors, [[0.9], [0.8], [0.7]])
    assert found.scores.tolist() == pytest.approx([0.7])


def test_nothing_above_the_threshold_is_no_detections() -> None:
    found = detect(APART, [[0.1]] * 4, score_threshold=0.5)
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)


def test_a_class_far_from_the_first_is_suppressed_as_exactly() -> None:
    # Moved apart by 90 classes of 100,000 px, float32 would round these sides to whole pixels.
    a, b = [99990.0, 0.0, 99990.75, 1.0], [99990.25, 0.0, 99991.0, 1.0]
    anchors = boxes_as_anchors([a, b])
    scores = [[0.0] * 89 + [0.9], [0.0] * 89 + [0.8]]
    # IoU 0.5 / 1.0.
    for nms_iou, wanted in ((0.49, 1), (0.51, 2)):
        found = detect(
            anchors, scores, make_batch(1, (100000, 100000)), nms_iou=nms_iou, score_threshold=0.1
        )
        assert len(found.scores) == wanted


@pytest.mark.parametrize("broken", ["logits", "deltas"])
def test_what_is_not_finite_is_an_error_that_names_the_image(broken: str) -> None:
    tensors = {"logits": torch.zeros(2, 4, 3), "deltas": torch.zeros(2, 4, 4)}
    tensors[broken][1, 2, 0] = math.nan
    predictions = Predictions(**tensors, anchors=APART, coder=BoxCoder())
    for threshold in (0.0, 0.3):
        config = PostprocessConfig(score_threshold=threshold)
        with pytest.raises(DivergedError, match="image 2"):
            postprocess(predictions, Sigmoid(3), make_batch(2), config)


def slow(
    scores: Tensor, boxes: Tensor, levels: tuple[int, ...], config: PostprocessConfig
) -> list[tuple[float, int, list[float]]]:
    """One image, in plain Python: (score, class, box), by falling score."""
    chosen, start = [], 0
    for size in levels:
        pairs = [
            (-scores[a, k].item(), a, k)
            for a in range(start, start + size)
            for k in range(scores.shape[1])
        ]
        chosen += sorted(pairs)[: config.topk_per_level]
        start += size
    kept: list[tuple[float, int, list[float]]] = []
    for negative, a, k in sorted(chosen):
        x1, y1, x2, y2 = (min(max(v, 0.0), 100.0) for v in boxes[a].tolist())
        if -negative <= config.score_threshold or x2 <= x1 or y2 <= y1:
            continue
        if all(k != c or overlap([x1, y1, x2, y2], b) <= config.nms_iou for _, c, b in kept):
            kept.append((-negative, k, [x1, y1, x2, y2]))
    return kept[: config.detections_per_image]


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


@pytest.mark.parametrize("layout", [Sigmoid(3), Softmax(3)])
@pytest.mark.parametrize("threshold", [0.0, 0.4])
@pytest.mark.parametrize("levels", [(200,), (120, 60, 20), (1200, 400)])
def test_it_equals_a_plain_loop(layout: Layout, threshold: float, levels: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    num = sum(levels)
    low = torch.rand(num, 2, generator=generator) * 120 - 10
    anchors = Anchors(
        torch.cat([low, low + 5 + 30 * torch.rand(num, 2, generator=generator)], -1),
        torch.full((num,), 8.0),
        levels,
    )
    logits = torch.randn(2, num, layout.num_outputs, generator=generator)
    deltas = 0.3 * torch.randn(2, num, 4, generator=generator)
    predictions = Predictions(logits, deltas, anchors, BoxCoder((2.0, 2.0, 1.0, 1.0)))
    # The largest case passes the size at which torchvision takes classes one by one.
    config = PostprocessConfig(threshold, 1100, 0.5, 50)
    found = postprocess(predictions, layout, make_batch(2), config)
    for i, detections in enumerate(found):
        wanted = slow(layout.scores(logits[i]), predictions.boxes[i], levels, config)
        assert detections.labels.tolist() == [k for _, k, _ in wanted]
        assert detections.scores.tolist() == [s for s, _, _ in wanted]
        # The plain loop clips in float64.
        torch.testing.assert_close(
            detections.boxes, torch.tensor([b for *_, b in wanted]), rtol=1e-6, atol=1e-5
        )


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2],
)
def test_scores_and_boxes_are_float32_or_better(given: torch.dtype, wanted: torch.dtype) -> None:
    predictions = Predictions(
        torch.zeros(1, 4, 2, dtype=given), torch.zeros(1, 4, 4, dtype=given), APART, BoxCoder()
    )
    found = postprocess(predictions, Sigmoid(2), make_batch(1), PostprocessConfig())[0]
    assert found.scores.dtype == found.boxes.dtype == wanted


def crowded(num: int, num_classes: int, seed: int = 0) -> Predictions:
    """Predictions of `num` images with many boxes on a few places, on two levels."""
    generator = torch.Generator().manual_seed(seed)
    corners = 20 * torch.randint(0, 3, (1300, 2), generator=generator).float()
    sides = 15 + 10 * torch.rand(1300, 2, generator=generator)
    anchors = Anchors(
        torch.cat([corners, corners + sides], -1), torch.full((1300,), 8.0), (1000, 300)
    )
    logits = torch.randn(num, 1300, num_classes, generator=generator)
    deltas = 0.1 * torch.randn(num, 1300, 4, generator=generator)
    return Predictions(logits, deltas, anchors, BoxCoder())


@pytest.mark.parametrize(("num_classes", "topk"), [(2, 1000), (20, 300)])
def test_images_of_a_batch_have_what_each_has_alone(num_classes: int, topk: int) -> None:
    # Of 1,300 boxes on nine places few stay, so that NMS has to look at all candidates too.
    together, layout = crowded(5, num_classes), Sigmoid(num_classes)
    config = PostprocessConfig(topk_per_level=topk)
    found = postprocess(together, layout, make_batch(5), config)
    for i, detections in enumerate(found):
        alone = Predictions(
            together.logits[i : i + 1], together.deltas[i : i + 1], together.anchors, BoxCoder()
        )
        (own,) = postprocess(alone, layout, make_batch(1), config)
        wanted = slow(layout.scores(alone.logits[0]), alone.boxes[0], (1000, 300), config)
        for name in ("boxes", "scores", "labels"):
            assert torch.equal(getattr(detections, name), getattr(own, name))
        assert own.scores.tolist() == [s for s, *_ in wanted]
        assert own.labels.tolist() == [k for _, k, _ in wanted]


def test_boxes_far_outside_cost_the_others_no_digits() -> None:
    near = [[0.0, 0.0, 0.5, 0.5], [0.1, 0.0, 0.6, 0.5]]  # IoU 2 / 3
    anchors = boxes_as_anchors([*near, [0.0, 0.0, 1e30, 1e30]])
    for nms_iou, wanted in ((0.66, 2), (0.67, 3)):
        found = detect(anchors, [[0.9], [0.8], [0.7]], clip="after_nms", nms_iou=nms_iou)  # type: ignore[arg-type]
        assert len(found.scores) == wanted


class Count(TorchDispatchMode):
    """Counts operators, and among them those that read a tensor on the host or have a shape that
    depends on its values: a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.names = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        is_masked = name == "index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.names["index by mask" if is_masked else name] += 1
        return func(*args, **(kwargs or {}))


WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "index by mask", "nms", "_unique2")


def test_more_images_make_neither_more_operators_nor_more_waits() -> None:
    counts = []
    for num in (2, 6):
        with Count() as count:
            found = pack(crowded(num, 20), Sigmoid(20), make_batch(num), PostprocessConfig(0.3))
        counts.append(count.names)
        assert found.boxes.shape == (num, 100, 4)
    assert counts[0] == counts[1]
    waits = {name: counts[0][name] for name in WAITS if counts[0][name]}
    assert waits.keys() <= {"nms", "nonzero"}
    assert sum(waits.values()) <= 2  # NMS, and whether more candidates have to be seen

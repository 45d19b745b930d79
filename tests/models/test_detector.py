"""The whole model: normalisation and padding, types, what it returns, initial scores."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from detector.config.model import FPNConfig, HeadConfig, ModelConfig
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.layouts import Objectness, Sigmoid, Softmax
from detector.models.detector import Detector, build_detector
from detector.structures import Batch

SMALL = ModelConfig(fpn=FPNConfig(channels=8), head=HeadConfig(channels=8, num_convs=1))


def build(**options: object) -> Detector:
    torch.manual_seed(0)
    plug = Plug("resnet", {"arch": "resnet18", **options})
    return build_detector(plug, SMALL, Sigmoid(3), 0.01)


def make_batch(sizes: list[tuple[int, int]], filling: int = 0, side: int = 64) -> Batch:
    """Random pixels in the part that counts, `filling` in the padding."""
    generator = torch.Generator().manual_seed(0)
    images = torch.full((len(sizes), 3, side, side), filling, dtype=torch.uint8)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:, :height, :width] = torch.randint(
            256, (3, height, width), generator=generator, dtype=torch.uint8
        )
    ids = tuple(range(1, len(sizes) + 1))
    return Batch(images, torch.tensor(sizes), torch.ones(len(sizes), 2), ids)


def test_predictions_have_a_row_for_each_anchor() -> None:
    predictions = build()(make_batch([(64, 64), (40, 50)]))
    # Cells of 64 px: 8^2 + 4^2 + 2^2 + 1 + 1, with nine anchors each.
    assert predictions.anchors.level_sizes == (576, 144, 36, 9, 9)
    assert predictions.logits.shape == (2, 774, 3)
    assert predictions.deltas.shape == predictions.boxes.shape == (2, 774, 4)


def test_pixels_are_normalised_by_hand() -> None:
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).repeat(1, 3, 1, 1)
    pixels = build().normalize(images, torch.tensor([[1, 3]]))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = [[(v / 255 - m) / s for v in (0, 128, 255)] for m, s in zip(mean, std, strict=True)]
    torch.testing.assert_close(pixels[0, :, 0], torch.tensor(wanted))


def test_float_images_hold_the_same_pixels() -> None:
    model, batch = build(), make_batch([(40, 64)])
    as_float = model.normalize(batch.images.float(), batch.sizes)
    assert torch.equal(as_float, model.normalize(batch.images, batch.sizes))


def test_the_padding_is_0_after_normalising_and_nothing_else_is_changed() -> None:
    model = build()
    padded = make_batch([(40, 50)], filling=255)
    pixels = model.normalize(padded.images, padded.sizes)
    assert not pixels[..., 40:, :].any()
    assert not pixels[..., 50:].any()
    content = padded.images[..., :40, :50]
    assert torch.equal(pixels[..., :40, :50], model.normalize(content, torch.tensor([[40, 50]])))


def test_what_is_in_the_padding_changes_nothing() -> None:
    model = build().eval()
    sizes = [(40, 50), (64, 10)]
    black, white = (model(make_batch(sizes, filling)) for filling in (0, 255))
    assert torch.equal(black.logits, white.logits)
    assert torch.equal(black.deltas, white.deltas)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_order_of_memory_survives_normalising(memory_format: torch.memory_format) -> None:
    batch = make_batch([(64, 64)] * 2)
    images = batch.images.contiguous(memory_format=memory_format)
    assert build().normalize(images, batch.sizes).is_contiguous(memory_format=memory_format)


def test_channels_last_gives_the_same_answer() -> None:
    model, batch = build(), make_batch([(64, 64), (40, 50)])
    plain = model(batch).logits
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = batch.images.contiguous(memory_format=torch.channels_last)
    other = model(Batch(images, batch.sizes, batch.scales, batch.image_ids)).logits
    # Sums of convolutions in another order, float32, logits near 5.
    torch.testing.assert_close(plain, other, rtol=1e-4, atol=1e-4)


def test_float64_is_kept_throughout() -> None:
    predictions = build().double()(make_batch([(64, 64)]))
    tensors = (predictions.logits, predictions.deltas, predictions.boxes)
    assert all(x.dtype == torch.float64 for x in tensors)


def test_under_autocast_the_boxes_are_still_float32() -> None:
    model, batch = build(), make_batch([(64, 64)])
    with torch.autocast("cpu", torch.bfloat16):
        predictions = model(batch)
    assert predictions.logits.dtype == torch.bfloat16
    assert predictions.boxes.dtype == torch.float32
    (predictions.logits.float().sum() + predictions.boxes.sum()).backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in gradients)


def test_the_anchors_are_one_object_and_no_buffer_is_touched() -> None:
    model, batch = build(), make_batch([(64, 64)])
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert model(batch).anchors is model(batch).anchors
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_a_copy_of_the_model_gives_the_same_answer() -> None:
    model, batch = build().eval(), make_batch([(64, 64)])
    wanted = model(batch).logits
    assert torch.equal(copy.deepcopy(model)(batch).logits, wanted)


@pytest.mark.parametrize("layout", [Sigmoid(4), Softmax(4), Objectness(4)])
@pytest.mark.parametrize("prior", [0.5, 0.01])
def test_the_foreground_begins_near_the_prior(
    layout: Sigmoid | Softmax | Objectness, prior: float
) -> None:
    torch.manual_seed(0)
    model = build_detector(Plug("resnet", {"arch": "resnet18"}), SMALL, layout, prior)
    predictions = model(make_batch([(64, 64)]))
    assert predictions.logits.shape[-1] == layout.num_outputs
    foreground: Tensor = layout.foreground(predictions.logits)
    # Weights of deviation 0.01 move the logits by hundredths.
    torch.testing.assert_close(foreground, torch.full_like(foreground, prior), rtol=0.1, atol=0)


def test_a_checkpoint_holds_weights_only_and_fits_a_model_built_without_reading_any() -> None:
    state = build().state_dict()
    assert {key.split(".")[0] for key in state} == {"backbone", "fpn", "head"}
    plug = Plug("resnet", {"arch": "resnet18"})
    other = build_detector(plug, SMALL, Sigmoid(3), 0.5, pretrained=False)
    other.load_state_dict(state)
    batch = make_batch([(64, 64)])
    assert torch.equal(other.eval()(batch).logits, build().eval()(batch).logits)


def test_pretrained_weights_are_read_unless_a_checkpoint_follows(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    net = torchvision.models.resnet18(weights=None)
    torch.save(net.state_dict(), path)
    plug = Plug("resnet", {"arch": "resnet18", "weights": str(path)})
    model = build_detector(plug, SMALL, Sigmoid(3), 0.01)
    assert torch.equal(model.backbone.get_parameter("conv1.weight"), net.conv1.weight)
    path.unlink()
    build_detector(plug, SMALL, Sigmoid(3), 0.01, pretrained=False)
    with pytest.raises(ConfigError, match="does not exist"):
        build_detector(plug, SMALL, Sigmoid(3), 0.01)

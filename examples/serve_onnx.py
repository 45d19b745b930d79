"""Finds objects in images with numpy, Pillow and ONNX Runtime alone; copy it into a product.

    detector export checkpoint=best.pt output=mine.onnx outputs=detections
    python serve_onnx.py mine.onnx 0.3 image.jpg ...

The file says how images are resized and what the classes are called; the graph does the rest.
"""

import json
import math
import sys

import numpy as np
import onnxruntime
from PIL import Image

MAX_PIXELS = 100_000_000  # larger images are refused before they are decoded


class Model:
    """A graph whose outputs are detections."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.meaning = json.loads(self.session.get_modelmeta().custom_metadata_map["detector"])
        if self.meaning["format_version"] != 2 or self.meaning["outputs"] != "detections":
            raise ValueError(f"{path}: export it with outputs=detections")

    def __call__(self, image, threshold=0.3):
        """Objects in an image of Pillow's, the surest first: boxes are x1, y1, x2, y2 in pixels."""
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        pixels = np.asarray(image.convert("RGB"))
        images, sizes = self.prepare(pixels)
        boxes, scores, labels, counts = self.session.run(None, {"images": images, "sizes": sizes})
        if counts[0] < 0:
            raise FloatingPointError("the model gives numbers that are not finite")
        height, width = pixels.shape[:2]
        boxes = boxes[0] * np.tile(np.array([width, height]) / sizes[0, ::-1], 2)
        return [
            {"box": box.tolist(), "score": float(score), "label": self.meaning["classes"][label]}
            for box, score, label in zip(boxes, scores[0], labels[0], strict=True)
            if score > threshold and label >= 0  # places without an object have label -1
        ]

    def prepare(self, pixels):
        """The inputs of the graph: (1, 3, H, W) pixels from 0 to 255, and the size of the image."""
        rule = self.meaning["preprocessing"]
        height, width = target_size(*pixels.shape[:2], rule)
        resized = resize(pixels, height, width, rule["interpolation"])
        step = rule["pad_to_multiple"]
        padded = np.zeros((1, 3, -(-height // step) * step, -(-width // step) * step), np.float32)
        padded[0, :, :height, :width] = resized.transpose(2, 0, 1)
        return padded, np.array([[height, width]], np.int64)


def target_size(height, width, rule):
    """Height and width after resizing: by the shorter side, unless the longer gets too long."""
    least, most = rule["min_size"], rule["max_size"]
    scale = 1.0 if least is None else least / min(height, width)
    if most is not None and (least is None or max(height, width) * scale > most):
        scale = most / max(height, width)
    half = 0.5 if rule["size_rounding"] == "nearest" else 0.0
    return tuple(max(1, math.floor(side * scale + half)) for side in (height, width))


def resize(pixels, height, width, interpolation):
    """Pixels (height, width, 3), within one step of 255 of what the model was trained on."""
    before = pixels.shape[:2]
    if (height, width) == before:
        return pixels
    if interpolation == "pillow":
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.BILINEAR))
    averages = interpolation == "area" and height * width < before[0] * before[1]
    rows, columns = (
        weights(old, new, averages and new <= old)
        for old, new in zip(before, (height, width), strict=True)
    )
    wide = np.einsum("xw,hwc->hxc", columns, pixels.astype(np.float32), optimize=True)
    result = np.einsum("yh,hxc->yxc", rows, wide, optimize=True)
    return result if interpolation == "torch" else np.rint(result)


def weights(old, new, averages):
    """(new, old) share of each pixel of a side in each pixel of the result."""
    if averages:  # of the area that it covers
        edges = np.arange(new + 1) * (old / new)
        low, high = np.maximum(edges[:-1, None], np.arange(old)), np.arange(1, old + 1)
        share = np.clip(np.minimum(edges[1:, None], high) - low, 0, None)
        return (share / share.sum(1, keepdims=True)).astype(np.float32)
    center = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    return np.clip(1 - np.abs(center[:, None] - np.arange(old)), 0, None).astype(np.float32)


if __name__ == "__main__":
    model = Model(sys.argv[1])
    for name in sys.argv[3:]:
        print(json.dumps({"file": name, "objects": model(Image.open(name), float(sys.argv[2]))}))

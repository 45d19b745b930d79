"""Writes detectron2.json: what detectron2 itself says with the weights of `formula.py`.

    git clone https://github.com/facebookresearch/detectron2    # 02b5c4e2 was used
    pip install torch torchvision fvcore iopath omegaconf hydra-core pycocotools cloudpickle
    PYTHONPATH=detectron2:. python -m tests.convert.golden.make_detectron2 detectron2 OUTPUT

Its compiled operators are not needed: they are of rotated boxes and deformable convolutions.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import torch

from tests.convert.golden import formula

sys.modules["detectron2._C"] = types.ModuleType("detectron2._C")

from detectron2.config import get_cfg  # noqa: E402
from detectron2.data import transforms  # noqa: E402
from detectron2.modeling import build_model  # noqa: E402
from detectron2.structures import Boxes, ImageList, Instances  # noqa: E402


def main(root: str, output: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(f"{root}/configs/COCO-Detection/retinanet_R_50_FPN_1x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).eval()
    state = model.state_dict()
    for name, value in state.items():
        state[name] = torch.from_numpy(formula.weights(name, tuple(value.shape), is_raw=True))
    model.load_state_dict(state)

    resize = transforms.ResizeShortestEdge([formula.MIN_SIZE] * 2, formula.MAX_SIZE)
    pixels = formula.image()[:, :, ::-1]  # BGR
    resized = resize.get_transform(pixels).apply_image(pixels)
    given = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
    inputs = [{"image": given, "height": formula.HEIGHT, "width": formula.WIDTH}]
    with torch.no_grad():
        images: ImageList = model.preprocess_image(inputs)
        features = [model.backbone(images.tensor)[f] for f in model.head_in_features]
        logits, deltas = model.head(features)
        anchors = model.anchor_generator(features)
        found = model(inputs)[0]["instances"]
        objects = Instances(
            images.image_sizes[0],
            gt_boxes=Boxes(torch.tensor(formula.BOXES)),
            gt_classes=torch.arange(3),
        )
        labels, _ = model.label_anchors(anchors, [objects])

    def rows(maps: list[torch.Tensor], width: int) -> torch.Tensor:
        flat = [x.view(1, -1, width, *x.shape[2:]).permute(0, 3, 4, 1, 2) for x in maps]
        return torch.cat([x.reshape(-1, width) for x in flat])

    all_anchors = torch.cat([a.tensor for a in anchors])
    kept = formula.positions(len(all_anchors))
    content = {
        "names": {name: list(value.shape) for name, value in state.items()},
        "sizes": [list(images.image_sizes[0]), list(images.tensor.shape[2:])],
        "anchors": formula.rounded(all_anchors[kept], 4),
        "logits": formula.rounded(rows(logits, 80)[kept][:, ::20]),
        "deltas": formula.rounded(rows(deltas, 4)[kept]),
        "boxes": formula.rounded(found.pred_boxes.tensor[:40], 4),
        "scores": formula.rounded(found.scores[:40]),
        "labels": found.pred_classes[:40].tolist(),
        "num_found": len(found),
        "positives": {i: k for i, k in enumerate(labels[0].tolist()) if 0 <= k < 80},
        "num_neutral": int((labels[0] == -1).sum()),
    }  # fmt: skip
    Path(output).write_text(json.dumps(content) + "\n")
    print(len(all_anchors), rows(logits, 80).std(), rows(deltas, 4).std(), content["num_found"])


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Writes mmdet.json or mmdet_caffe.json: what mmdetection says with the weights of `formula.py`.

    pip install torch torchvision mmengine mmcv-lite==2.1.0 mmdet==3.3.0 --no-deps    # and theirs
    python -m tests.convert.golden.make_mmdet retinanet_r50_fpn_1x_coco tests/.../mmdet.json
    python -m tests.convert.golden.make_mmdet retinanet_r50-caffe_fpn_1x_coco .../mmdet_caffe.json

Of its compiled operators only NMS is needed, which torchvision has too.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
import torchvision

from tests.convert.golden import formula


class Operators(types.ModuleType):
    """Stands for mmcv's compiled ones."""

    __path__ = ()  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return nms if name == "nms" else None


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> Any:
    assert offset == 0
    return torchvision.ops.nms(boxes, scores, iou_threshold)


sys.modules["mmcv._ext"] = Operators("mmcv._ext")

import mmcv  # noqa: E402
import mmdet  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmdet.utils import register_all_modules  # noqa: E402
from mmengine import Config  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402


def main(name: str, output: str) -> None:
    register_all_modules()
    folder = Path(mmdet.__file__).parent / ".mim" / "configs" / "retinanet"
    cfg = Config.fromfile(folder / f"{name}.py")
    cfg.model.backbone.init_cfg = None  # nothing is downloaded
    model = MODELS.build(cfg.model).eval()
    is_raw = "caffe" in name
    state = model.state_dict()
    for key, value in state.items():
        if value.is_floating_point():
            drawn = formula.weights(key, tuple(value.shape), is_raw=is_raw)
            state[key] = torch.from_numpy(drawn)
    model.load_state_dict(state)

    resized, _ = mmcv.imrescale(
        formula.image()[:, :, ::-1].copy(),  # BGR, as mmcv reads files
        (formula.MAX_SIZE, formula.MIN_SIZE),
        return_scale=True,
    )
    height, width = resized.shape[:2]
    sample = DetDataSample(
        metainfo={
            "img_shape": (height, width),
            "ori_shape": (formula.HEIGHT, formula.WIDTH),
            "scale_factor": (width / formula.WIDTH, height / formula.HEIGHT),
        }
    )
    data = {"inputs": [torch.from_numpy(resized).permute(2, 0, 1)], "data_samples": [sample]}
    head = model.bbox_head
    with torch.no_grad():
        data = model.data_preprocessor(data)
        images, samples = data["inputs"], data["data_samples"]
        logits, deltas = head(model.extract_feat(images))
        found = model.predict(images, samples, rescale=True)[0].pred_instances
        sizes = [x.shape[-2:] for x in logits]
        meta = samples[0].metainfo
        anchors, flags = head.get_anchors(sizes, [meta], device="cpu")
        assert bool(torch.cat(flags[0]).all()), "an anchor in the padding does not count"
        all_anchors = torch.cat(anchors[0])
        objects = InstanceData(bboxes=torch.tensor(formula.BOXES), labels=torch.arange(3))
        assigned = head.assigner.assign(InstanceData(priors=all_anchors), objects).gt_inds

    def rows(maps: list[torch.Tensor], width: int) -> torch.Tensor:
        return torch.cat([x.permute(0, 2, 3, 1).reshape(-1, width) for x in maps])

    kept = formula.positions(len(all_anchors))
    content = {
        "names": {key: list(value.shape) for key, value in state.items()},
        "sizes": [[height, width], list(images.shape[2:])],
        "anchors": formula.rounded(all_anchors[kept], 4),
        "logits": formula.rounded(rows(logits, 80)[kept][:, ::20]),
        "deltas": formula.rounded(rows(deltas, 4)[kept]),
        "boxes": formula.rounded(found.bboxes[:40], 4),
        "scores": formula.rounded(found.scores[:40]),
        "labels": found.labels[:40].tolist(),
        "num_found": len(found),
        "positives": {i: k - 1 for i, k in enumerate(assigned.tolist()) if k > 0},
        "num_neutral": int((assigned == -1).sum()),
    }
    Path(output).write_text(json.dumps(content) + "\n")
    print(len(all_anchors), rows(logits, 80).std(), rows(deltas, 4).std(), content["num_found"])


if __name__ == "__main__":
    main(*sys.argv[1:])

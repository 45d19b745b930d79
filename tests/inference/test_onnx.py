"""An exported graph finds what its checkpoint finds, through every door."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import detector
from detector.config import from_plain
from detector.config.registry import DATASETS
from detector.data.export import write_coco
from detector.errors import ConfigError, DataError
from detector.inference import export as exporting
from detector.inference.export import export
from detector.inference.graph import GraphPredictor, load_graph
from detector.inference.onnx import write_openvino
from detector.inference.verify import BOUNDS, Agreement, Row, compare, matched
from detector.runs import checkpoint
from tests.commands import ROOT, Command
from tests.data.files import write_image
from tests.training.tiny import TINY, go, tiny

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.timeout(1200)  # an export is 20 to 50 s of a core, which may be shared

LAYOUTS = {"focal": "Sigmoid", "ssd": "Softmax", "yolo_objectness": "Objectness"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under `run`, its graph as graph.onnx, val images under `val`."""
    path = tmp_path_factory.mktemp("onnx")
    plain = tiny(path / "run", steps=12, batch_size=8)
    go(plain)
    write_coco(DATASETS.build(from_plain(plain).data).read("val"), path, "val")
    export(path / "run" / "checkpoints" / "last.pt", path / "graph.onnx")
    return path


@pytest.fixture(scope="module")
def last(folder: Path) -> Path:
    return folder / "run" / "checkpoints" / "last.pt"


def test_a_graph_is_called_as_a_checkpoint_and_finds_the_same(folder: Path, last: Path) -> None:
    """Alone and several at a time, at sizes that the exporter has not seen."""
    graph = detector.load(folder / "graph.onnx")
    model = detector.load(last, device="cpu")
    assert isinstance(graph, GraphPredictor)
    assert (graph.classes, graph.category_ids) == (model.classes, model.category_ids)
    generator = np.random.default_rng(0)
    images = [
        generator.integers(0, 256, (height, width, 3), np.uint8)
        for height, width in ((64, 64), (37, 90), (130, 66), (64, 64))
    ]
    agreement = compare(model, graph, images)
    assert [row.detections for row in agreement.rows] == [800, 800]  # 100 an image of either
    assert agreement.is_same, agreement
    assert max(row.score for row in agreement.rows) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ssd", "yolo_objectness"])
def test_every_layout_is_exported(loss: str, tmp_path: Path) -> None:
    folder = go(tiny(tmp_path / "run", steps=2, loss={"name": loss, "weight": 1.0}))
    done = export(folder / "checkpoints" / "last.pt", tmp_path / "graph.onnx")
    assert done.agreement is not None
    assert done.agreement.is_same
    assert load_graph(done.path).layout == LAYOUTS[loss]


@pytest.mark.slow
def test_boxes_as_distributions_are_exported(tmp_path: Path) -> None:
    model = {**TINY["model"], "coder": {"layout": "distribution", "bins": 9, "reach": 1.5}}
    folder = go(tiny(tmp_path / "run", steps=2, model=model))
    done = export(folder / "checkpoints" / "last.pt", tmp_path / "graph.onnx")
    assert done.agreement is not None
    assert done.agreement.is_same


def test_the_tools_take_a_graph_like_a_checkpoint(
    command: Command, folder: Path, last: Path
) -> None:
    graph = f"checkpoint={folder / 'graph.onnx'}"
    assert command("evaluate", graph, "output_dir=scores").code == 0
    ours = json.loads(Path("scores/metrics.json").read_text())
    theirs = json.loads((folder / "run" / "metrics.json").read_text())
    assert ours["AP"] == pytest.approx(theirs["AP"], abs=1e-3)
    words = (f"source={folder / 'val'}", "threshold=0")
    assert command("predict", graph, *words, "output_dir=a").code == 0
    assert command("predict", f"checkpoint={last}", *words, "output_dir=b", "device=cpu").code == 0
    a, b = (json.loads(Path(f"{name}/predictions.json").read_text()) for name in "ab")
    for row, other in zip(a, b, strict=True):
        assert row["file"] == other["file"]
        np.testing.assert_allclose(row["scores"], other["scores"], atol=1e-4)


def test_exporting_says_how_both_agree(command: Command, folder: Path, last: Path) -> None:
    write_image(Path("images/a.png"), 40, 60)
    outcome = command("export", f"checkpoint={last}", "output=a.onnx", "images=images")
    assert (outcome.code, outcome.err) == (0, "")
    first, written = outcome.out.splitlines()[-2:]
    assert first.startswith("the same as the checkpoint: 1 images, 200 detections: 0 without")
    assert "batch  images  detections  at limits  unmatched" in outcome.out
    assert written == "written: a.onnx"
    again = command("export", f"checkpoint={last}", "output=a.onnx")
    assert again.message == "output: a.onnx is already there; overwrite=true replaces it"
    assert sorted(p.name for p in Path().iterdir()) == ["a.onnx", "images"]


def test_a_graph_that_finds_something_else_is_not_written(
    folder: Path, last: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph of the last weights beside a checkpoint of which one bias is another."""
    saved = checkpoint.load(last)
    for state in (saved["model"], saved["ema"]):
        for name, value in state.items():
            if name.endswith("head.class_outputs.bias"):
                value += 0.1
    checkpoint.save(tmp_path / "other.pt", saved)
    graph = (folder / "graph.onnx").read_bytes()
    monkeypatch.setattr(exporting, "write", lambda *rest: rest[-1].write_bytes(graph))
    with pytest.raises(ConfigError, match=r"the graph does not find what .*other\.pt finds"):
        export(tmp_path / "other.pt", tmp_path / "a.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["other.pt"]


def test_nothing_found_proves_nothing() -> None:
    def of(detections: int, at_limits: int, unmatched: int) -> bool:
        row = Row("1", 3, detections, at_limits, unmatched, 0.0, 0.0)
        return Agreement((row,), BOUNDS["float32"]).is_same

    assert not of(0, 0, 0)
    assert of(200, 2, 0)
    assert not of(200, 3, 0)
    assert not of(200, 0, 1)
    assert not Agreement((), BOUNDS["float32"]).is_same


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Any:
    arrays = np.array(boxes, np.float32), np.array(scores, np.float32), np.array(labels)
    return detector.Detections(*arrays, ("a", "b"), (1, 2))


def test_partners_have_one_class_much_overlap_and_nearly_one_score() -> None:
    ours = found([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.8, 0.7], [0, 1, 0])
    assert matched(ours, ours) == (6, 0, 0, 0.0, 0.0)
    theirs = found(
        [[0, 0, 10, 10.05], [0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.7, 0.7], [0, 1, 1]
    )
    count, at_limits, unmatched, score, box = matched(ours, theirs)
    assert (count, at_limits, unmatched) == (6, 0, 4)  # another score; another class: two of each
    assert (score, round(box, 3)) == (0.0, 0.05)


def test_what_lies_at_a_limit_may_fall_on_either_side() -> None:
    """The last rank, the threshold, the overlap of NMS, and what these take along."""
    one = found([[0, 0, 10, 10]], [0.9], [0])
    both = found([[0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.3005], [0, 0])
    assert matched(one, both)[1:3] == (0, 1)
    assert matched(one, both, threshold=0.3)[1:3] == (1, 0)
    assert matched(one, both, most=2)[1:3] == (1, 0)
    # The second overlaps the first by 1 / 2 to the last digit; the third overlaps the second.
    near = found([[0, 0, 10, 10], [0, 0, 10, 20]], [0.9, 0.8], [0, 0])
    chain = found([[0, 0, 10, 10], [0, 6, 10, 20]], [0.9, 0.7], [0, 0])
    assert matched(near, chain)[1:3] == (2, 0)
    assert matched(one, chain)[1:3] == (0, 1)


def test_below_the_score_that_counts_nothing_is_counted() -> None:
    ours = found([[0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.2], [0, 0])
    theirs = found([[0, 0, 10, 10]], [0.89], [0])
    assert matched(ours, theirs, BOUNDS["float16"])[:3] == (2, 0, 0)
    assert matched(ours, theirs, BOUNDS["float32"])[2] == 3


@pytest.mark.slow
def test_a_calibrated_graph_maps_scores_as_its_checkpoint(
    command: Command, folder: Path, last: Path
) -> None:
    words = ("draws=0", "device=cpu", "min_detections=1")
    outcome = command("calibrate", f"checkpoint={last}", "output=calibrated.pt", *words)
    assert outcome.code == 0, outcome.err
    export("calibrated.pt", "calibrated.onnx")
    pixels = np.asarray(Image.open(folder / "val" / "000001.png").convert("RGB"))
    results = [
        detector.load(name, **where)(pixels, threshold=0.0, calibrated=True)
        for name, where in (("calibrated.pt", {"device": "cpu"}), ("calibrated.onnx", {}))
    ]
    np.testing.assert_allclose(results[0].scores, results[1].scores, atol=1e-5)


@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".xml", marks=pytest.mark.slow)])
def test_a_graph_is_calibrated_by_what_it_finds_itself(
    command: Command, folder: Path, suffix: str
) -> None:
    graph = folder / "graph.onnx"
    if suffix == ".xml":
        pytest.importorskip("openvino")
        graph = Path("graph.xml").resolve()
        text = json.dumps(load_graph(folder / "graph.onnx").meaning)
        write_openvino(folder / "graph.onnx", text, graph, half=False)
    copy, words = f"copy{suffix}", ("draws=0", "device=cpu", "min_detections=1")
    outcome = command("calibrate", f"checkpoint={graph}", f"output={copy}", *words)
    assert outcome.code == 0, outcome.err
    assert set(json.loads(Path("copy.json").read_text())["methods"]) == {
        "none", "platt", "temperature", "isotonic", "link_inverse",
    }  # fmt: skip
    before, after = detector.load(graph), detector.load(copy)
    assert before.calibration is None
    assert after.calibration is not None
    pixels = np.asarray(Image.open(folder / "val" / "000001.png").convert("RGB"))
    raw, same = (model(pixels, threshold=0.0) for model in (before, after))
    np.testing.assert_array_equal(same.scores, raw.scores)  # what it computes has not changed
    mapped = after(pixels, threshold=0.0, calibrated=True)
    calibrator = after.calibration.calibrator
    assert calibrator is not None
    expected = np.sort(calibrator(raw.scores.astype(np.float64), raw.labels))[::-1]
    np.testing.assert_allclose(mapped.scores, expected, atol=1e-7)  # float32 of the scores
    assert len(after(pixels, threshold="auto")) <= len(raw)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("output=copy.pt",), "a name that ends in .onnx is needed"),
        (("output=copy.onnx", "method=link_inverse"), "link_inverse needs this project's losses"),
        (("output=copy.onnx", "anchors=true"), "anchors: true given, which takes a checkpoint"),
        (("output=copy.onnx", "precision=bfloat16"), "a graph has its own"),
    ],
)
def test_what_cannot_be_learnt_of_a_graph_is_said(
    command: Command, folder: Path, argv: tuple[str, ...], message: str
) -> None:
    outcome = command("calibrate", f"checkpoint={folder / 'graph.onnx'}", *argv)
    assert outcome.code == 2
    assert message in outcome.err
    assert not [*Path().glob("copy*")]


WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision", "cv2", "albumentations", "pycocotools"):
    sys.modules[name] = None  # an import of it fails
import detector
print(len(detector.load(sys.argv[1])(sys.argv[2], threshold=0.0)))
"""


def test_a_graph_needs_no_torch(folder: Path) -> None:
    argv = [str(folder / "graph.onnx"), str(folder / "val" / "000001.png")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *argv],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "100\n"


class TestHostileFiles:
    def test_what_is_no_graph_is_refused_in_a_line(self, folder: Path, tmp_path: Path) -> None:
        whole = (folder / "graph.onnx").read_bytes()
        contents = {"empty": b"", "text": b"<html>", "cut": whole[: len(whole) // 2]}
        for name, content in contents.items():
            path = tmp_path / f"{name}.onnx"
            path.write_bytes(content)
            with pytest.raises(ConfigError, match="cannot be read as ONNX") as caught:
                detector.load(path)
            assert "\n" not in str(caught.value)
        with pytest.raises(ConfigError, match=r"no\.onnx is not a file"):
            detector.load(tmp_path / "no.onnx")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "does not say what its outputs mean"),
            ("[]", "does not say what its outputs mean"),
            ("{}", "does not say what its outputs mean"),
            ('{"format_version": 2}', "does not say what its outputs mean"),
            ("[" * 100_000, "does not say what its outputs mean"),
        ],
    )
    def test_metadata_of_others_are_refused(
        self, folder: Path, tmp_path: Path, text: str, words: str
    ) -> None:
        with pytest.raises(ConfigError, match=words):
            detector.load(changed(folder, tmp_path, lambda _: text))

    def test_a_newer_format_and_a_config_with_code_are_refused(
        self, folder: Path, tmp_path: Path
    ) -> None:
        def newer(meaning: dict[str, Any]) -> dict[str, Any]:
            return meaning | {"format_version": 99}

        def evil(meaning: dict[str, Any]) -> dict[str, Any]:
            return meaning | {"config": {"loss": {"_target_": "os.system"}}}

        with pytest.raises(ConfigError, match="has format 99, 2 is what this version reads"):
            detector.load(changed(folder, tmp_path, newer))
        with pytest.raises(ConfigError, match="`_target_` is refused"):
            detector.load(changed(folder, tmp_path, evil))

    def test_data_outside_of_the_folder_and_operators_of_others_are_refused(
        self, folder: Path, tmp_path: Path
    ) -> None:
        import onnx

        model = onnx.load(folder / "graph.onnx")
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", "../../../etc/passwd"
        (tmp_path / "outside.onnx").write_bytes(model.SerializeToString())
        other = onnx.load(folder / "graph.onnx")
        other.graph.node[0].domain = "com.somebody"
        (tmp_path / "custom.onnx").write_bytes(other.SerializeToString())
        for name in ("outside", "custom"):
            with pytest.raises(ConfigError, match="cannot be read as ONNX"):
                detector.load(tmp_path / f"{name}.onnx")


def changed(folder: Path, tmp_path: Path, change: Any) -> Path:
    """The graph with other metadata."""
    import onnx

    model = onnx.load(folder / "graph.onnx")
    (entry,) = [e for e in model.metadata_props if e.key == "detector"]
    new = change(json.loads(entry.value))
    entry.value = new if isinstance(new, str) else json.dumps(new)
    path = tmp_path / "changed.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_what_cannot_be_exported_is_said_before_anything_is_made(
    last: Path, tmp_path: Path
) -> None:
    saved = checkpoint.load(last)
    saved["config"]["model"]["anchors"] = {"stride_mode": "image", "offset": 0.0}
    checkpoint.save(tmp_path / "image.pt", saved)
    with pytest.raises(ConfigError, match="stride_mode: image cannot be exported"):
        export(tmp_path / "image.pt", tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match=r"a name that ends in \.onnx, \.xml, \.pt2 is needed"):
        export(last, tmp_path / "a.pb")
    with pytest.raises(ConfigError, match="images: nowhere is not a folder"):
        export(last, tmp_path / "a.onnx", images="nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        export(last, tmp_path / "a.onnx", images=str(tmp_path / "empty"))


def test_a_device_or_a_precision_is_none_of_a_graphs_business(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match="device: cuda given, but this ONNX Runtime computes on the cpu"
    ):
        detector.load(folder / "graph.onnx", device="cuda")
    with pytest.raises(ConfigError, match="precision: bfloat16 given, a graph has its own"):
        detector.load(folder / "graph.onnx", precision="bfloat16")

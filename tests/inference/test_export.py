"""What is exported besides logits in float32: detections, a calibrator, half, other formats."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detector
from detector.analysis.calibrators import Calibrator, Line, Steps
from detector.analysis.operating_points import OperatingPoints
from detector.config import from_plain
from detector.config.registry import DATASETS
from detector.data.export import write_coco
from detector.errors import ConfigError, DataError
from detector.inference.calibrated import Calibration
from detector.inference.export import ExportOptions, export, verify
from detector.inference.graph import load_graph
from detector.inference.modules import Calibrate, Found, Inside, Outputs, suppress_by_torchvision
from detector.inference.onnx import write_openvino
from detector.inference.pt2 import is_arithmetic, is_plain_tree, refusal
from detector.inference.restate import restate
from detector.inference.verify import iou_of
from detector.runs import checkpoint
from tests.commands import ROOT, Command
from tests.training.tiny import go, tiny

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.timeout(1200)  # an export is 20 to 50 s of a core, which may be shared

LINES = Calibrator(
    kind="platt", target="hit", threshold=0.5, counts=(9, 1, 9, 9),
    maps=(Line(1.3, -0.4), None, Line(0.7, 0.2), Line(1.1, 0.0)), pooled=Line(0.9, 0.1),
)  # fmt: skip
STEPS = Calibrator(
    kind="isotonic", target="hit", threshold=0.5, counts=(9, 9, 1),
    pooled=Steps((0.0, 1.0), (0.1, 0.6)),
    maps=(Steps((0.1, 0.4, 0.4001), (0.0, 0.2, 0.9)), Steps((0.3,), (0.5,)), None),
)  # fmt: skip

POINTS = {
    "lrp": OperatingPoints("by hand", (0.3,) * 4, 0.3, (True,) * 4, (None,) * 4, (None,) * 4),
}


@pytest.fixture(scope="module")
def sure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated checkpoint with scores beyond a half, and beside it val images under `val`."""
    path = tmp_path_factory.mktemp("export")
    plain = tiny(path / "run", steps=12, batch_size=8)
    go(plain)
    write_coco(DATASETS.build(from_plain(plain).data).read("val"), path, "val")
    saved = checkpoint.load(path / "run" / "checkpoints" / "last.pt")
    for state in (saved["model"], saved["ema"]):
        for name, value in state.items():
            if name.endswith("head.class_outputs.bias"):
                value += 3.0
    assert len(saved["classes"]) == len(LINES.maps)
    saved[checkpoint.CALIBRATION] = Calibration(LINES, POINTS, POINTS, "").to_dict()
    checkpoint.save(path / "sure.pt", saved)
    return path / "sure.pt"


@pytest.fixture(scope="module")
def found(sure: Path) -> Path:
    """An ONNX file that ends at calibrated detections."""
    options = ExportOptions(outputs="detections", calibrated=True, licence="MIT")
    return export(sure, sure.with_name("found.onnx"), options).path


class TestDetectionsInTorch:
    """The module that exporters follow, before any of them has."""

    @pytest.mark.parametrize("loss", ["focal", "ssd", "yolo_objectness"])
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"topk_of": "anchors", "topk_per_level": 40},
            {"clip": "after_nms", "detections_per_image": 30},
            {"drop_empty": False, "score_threshold": 0.02},
            {"topk_per_level": 3},
        ],
    )
    def test_finds_what_the_predictor_finds(
        self, loss: str, changes: dict[str, Any], tmp_path: Path
    ) -> None:
        steps = tiny(tmp_path / "run", steps=1, loss={"name": loss, "weight": 1.0})
        model = detector.load(go(steps) / "checkpoints" / "last.pt", device="cpu")
        assert isinstance(model, detector.Predictor)
        settings = replace(model.config.model.postprocess, **changes)
        module = Found(
            Outputs(model.model), model.layout, Inside(settings), suppress_by_torchvision
        )
        batch = detector.Batch(
            torch.randint(0, 256, (2, 3, 64, 96)).float(),
            torch.tensor([[64, 96], [40, 70]]),
            torch.ones(2, 2),
            (0, 1),
        )
        expected = model.detect(batch, settings)
        with torch.no_grad():
            boxes, scores, labels, counts = module(batch.images, batch.sizes)
        assert counts.tolist() == [len(one) for one in expected]
        for i, one in enumerate(expected):
            count = len(one)
            # Boxes of one score may come in another order, so each is looked for.
            overlap = iou_of(one.boxes, boxes[i, :count].numpy())
            same = one.labels[:, None] == labels[i, :count].numpy()
            assert np.all((overlap * same).max(1, initial=0) > 0.999)
            np.testing.assert_allclose(one.scores, scores[i, :count], atol=1e-6)
            assert (scores[i, count:] == 0).all()
            assert (labels[i, count:] == -1).all()

    def test_what_is_not_finite_is_said(self, sure: Path) -> None:
        model: Any = detector.load(sure, device="cpu")
        module = Found(
            Outputs(model.model),
            model.layout,
            Inside(model.config.model.postprocess),
            suppress_by_torchvision,
        )
        images = torch.zeros(2, 3, 64, 64)
        images[1, 0, 0, 0] = torch.nan
        with torch.no_grad():
            counts = module(images, torch.full((2, 2), 64))[3]
        assert counts[0] > 0
        assert counts[1] == -1

    @pytest.mark.parametrize("calibrator", [LINES, STEPS], ids=["lines", "steps"])
    def test_a_calibrator_is_the_same(self, calibrator: Calibrator) -> None:
        scores = np.linspace(0, 1, 301, dtype=np.float32)
        scores[7:10] = (0.1, 0.4, 0.4001)  # points of the steps
        labels = np.arange(301) % 3
        ours = Calibrate(calibrator)(torch.tensor(scores)[None], torch.tensor(labels)[None])[0]
        np.testing.assert_allclose(ours, calibrator(scores, labels), atol=1e-7)  # float32's

    def test_a_link_cannot_be_inside(self) -> None:
        mixed = replace(LINES, maps=(Line(1.0, 0.0), STEPS.maps[1]))
        with pytest.raises(ValueError, match="cannot be part of a graph"):
            Calibrate(mixed)


class TestOnnxWithDetections:
    def test_calibrated_scores_are_those_of_the_checkpoint(self, sure: Path, found: Path) -> None:
        graph, model = detector.load(found), detector.load(sure, device="cpu")
        assert graph.gives_calibrated
        paths = sorted((sure.parent / "val").glob("*.png"))
        for ours, theirs in zip(
            model(paths, threshold=0.2, calibrated=True), graph(paths, threshold=0.2), strict=True
        ):
            assert len(ours) == len(theirs) > 0
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-6)
            np.testing.assert_array_equal(ours.labels, theirs.labels)

    def test_the_file_says_how_to_feed_it(self, found: Path) -> None:
        meaning = load_graph(found).meaning
        assert meaning["licence"] == "MIT"
        assert meaning["outputs"] == "detections"
        assert meaning["calibrated"] is True
        assert meaning["preprocessing"]["interpolation"] == "area"
        assert meaning["preprocessing"]["pad_to_multiple"] == 32

    def test_it_is_verified_again_against_any_images(
        self, command: Command, sure: Path, found: Path
    ) -> None:
        words = (f"checkpoint={sure}", f"output={found}", "verify=only")
        outcome = command("export", *words, f"images={sure.parent / 'val'}")
        assert (outcome.code, outcome.err) == (0, "")
        assert "the same as the checkpoint" in outcome.out
        other = sure.parent / "run" / "checkpoints" / "last.pt"
        refused = command("export", f"checkpoint={other}", *words[1:])
        assert "was not made of" in refused.message

    def test_the_example_finds_what_the_predictor_finds(self, sure: Path, found: Path) -> None:
        """In a process that has numpy, Pillow and ONNX Runtime, and nothing of this project."""
        paths = sorted(map(str, (sure.parent / "val").glob("*.png")))
        code = (
            "import sys, runpy\n"
            "for name in ('detector', 'torch', 'cv2', 'yaml'): sys.modules[name] = None\n"
            "runpy.run_path(sys.argv[1], run_name='__main__', init_globals=None)"
        )
        script = f"import sys; script = sys.argv.pop(1); sys.argv[0] = script\n{code}"
        script = script.replace("sys.argv[1]", "script")
        example = str(ROOT / "examples" / "serve_onnx.py")
        done = subprocess.run(
            [sys.executable, "-c", script, example, str(found), "0.3", *paths],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        model = detector.load(sure, device="cpu")
        for row, expected in zip(rows, model(paths, threshold=0.3, calibrated=True), strict=True):
            assert len(row["objects"]) == len(expected) > 0
            for one, (box, score, _, name) in zip(row["objects"], expected, strict=True):
                assert one["label"] == name
                assert one["score"] == pytest.approx(score, abs=1e-4)
                np.testing.assert_allclose(one["box"], box, atol=0.01)

    def test_the_example_is_short(self) -> None:
        assert len((ROOT / "examples" / "serve_onnx.py").read_text().splitlines()) <= 100


class TestOpenVino:
    @pytest.fixture
    def ir(self, found: Path, tmp_path: Path) -> Path:
        """NAME.xml and NAME.bin of the ONNX file, as the export makes them."""
        pytest.importorskip("openvino")
        text = json.dumps(load_graph(found).meaning)
        write_openvino(found, text, tmp_path / "found.xml", half=False)
        return tmp_path / "found.xml"

    def test_it_finds_what_the_checkpoint_finds(self, sure: Path, ir: Path) -> None:
        assert verify(sure, ir).agreement is not None
        with pytest.raises(ConfigError, match="OpenVINO computes in float32 or bfloat16"):
            detector.load(ir, precision="float16")
        image = next((sure.parent / "val").glob("*.png"))
        assert len(detector.load(ir, precision="bfloat16")(image)) > 0

    def test_what_is_damaged_is_refused_in_a_line(self, ir: Path) -> None:
        text = ir.read_text()
        for content in ("", "<html>", text[: len(text) // 2], text.replace('"TopK"', '"Evil"')):
            ir.write_text(content)
            with pytest.raises(ConfigError, match="cannot be read as OpenVINO's IR") as caught:
                detector.load(ir)
            assert "\n" not in str(caught.value)
        ir.write_text(text)
        ir.with_suffix(".bin").unlink()
        with pytest.raises(ConfigError, match=r"has no found\.bin beside it"):
            detector.load(ir)


class TestExampleResizing:
    @pytest.mark.parametrize("interpolation", ["area", "linear", "torch", "pillow"])
    @pytest.mark.parametrize("sizes", [(40, 30), (200, 300), (53, 41)])
    def test_pixels_are_within_a_step(self, interpolation: str, sizes: tuple[int, int]) -> None:
        from detector.inference.resize import resize

        example: dict[str, Any] = {}
        path = ROOT / "examples" / "serve_onnx.py"
        exec(compile(path.read_text(), str(path), "exec"), {"__name__": "example"}, example)
        example["resize"].__globals__.update(example)
        pixels = np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8)
        ours = example["resize"](pixels, *sizes, interpolation)
        theirs = resize(pixels, sizes, interpolation)  # type: ignore[arg-type]
        assert np.abs(ours.astype(float) - theirs).max() <= 1


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"threshold": 0.3}, "threshold: given with outputs=raw"),
            ({"calibrated": True}, "calibrated: given with outputs=raw"),
            ({"outputs": "detections", "threshold": 1.0}, "0 to below 1 is allowed"),
            ({"shape": (1, 64, 65)}, "multiples of 32"),
        ],
    )
    def test_options_that_make_no_sense(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            ExportOptions(**options)

    def test_int8_is_of_onnx(self, sure: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"int8 is written as NAME\.onnx alone"):
            export(sure, tmp_path / "a.pt2", ExportOptions(precision="int8"))

    def test_a_threshold_below_the_one_inside(self, found: Path) -> None:
        model = load_graph(found)
        model.meaning = model.meaning | {"threshold": 0.5}
        pixels = np.zeros((64, 64, 3), np.uint8)
        model(pixels, threshold=0.5)
        with pytest.raises(ConfigError, match=r"gives nothing below 0\.5"):
            model(pixels, threshold=0.3)

    def test_an_image_that_a_graph_of_one_size_does_not_take(self, found: Path) -> None:
        model = load_graph(found)
        model.meaning = model.meaning | {"shape": [2, 64, 64]}
        images = [np.full((64, 64, 3), level, np.uint8) for level in (0, 99, 200)]
        free = load_graph(found)(images, threshold=0.0)
        for ours, theirs in zip(model(images, threshold=0.0), free, strict=True):
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-6)
        with pytest.raises(DataError, match="96 x 64 px after resizing and padding"):
            model(np.zeros((90, 64, 3), np.uint8))

    def test_a_graph_with_other_outputs_than_it_says(self, found: Path, tmp_path: Path) -> None:
        import onnx

        model = onnx.load(found)
        meaning = json.loads(model.metadata_props[0].value)
        meaning |= {"outputs": "raw"}
        model.metadata_props[0].value = json.dumps(meaning)
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(ConfigError, match="which is not what it says of itself"):
            detector.load(tmp_path / "other.onnx")


@pytest.fixture(scope="module")
def program(sure: Path) -> Path:
    """A file of torch.export that ends at detections."""
    options = ExportOptions(outputs="detections")
    done = export(sure, sure.with_name("program.pt2"), options)
    assert done.agreement is not None
    return done.path


class TestPrograms:
    """Files of torch.export."""

    def test_it_holds_no_pickle_and_is_read_again(self, program: Path, sure: Path) -> None:
        with zipfile.ZipFile(program) as archive:
            pickles = [r for r in archive.infolist() if r.filename.endswith((".pt", ".pkl"))]
        assert sum(record.file_size for record in pickles) == 0
        assert verify(sure, program).agreement is not None

    def test_a_copy_says_something_else_and_computes_the_same(
        self, program: Path, tmp_path: Path
    ) -> None:
        meaning = load_graph(program).meaning
        stored = Calibration(STEPS, POINTS, POINTS, "of the copy").to_dict()
        restate(program, tmp_path / "copy.pt2", {**meaning, "calibration": stored})
        before, after = load_graph(program), load_graph(tmp_path / "copy.pt2")
        assert after.calibration is not None
        assert after.calibration.note == "of the copy"
        image = next((program.parent / "val").glob("*.png"))
        first, second = (model(image, threshold=0.0) for model in (before, after))
        np.testing.assert_array_equal(first.scores, second.scores)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                lambda parts: parts.update({"data/sample_inputs/model.pt": b"\x80\x04N."}),
                "a pickle",
            ),
            (lambda parts: parts.update({"data/constants/opaque_0": b"x"}), "no export writes"),
            (lambda parts: at(parts, '"use_pickle": false', '"use_pickle": true'), "a pickle"),
            (lambda parts: at(parts, "weight_0", "../../x"), "takes numbers from"),
            (lambda parts: at(parts, "torch.ops.aten.conv2d.default", "torch.hub.load"), "calls"),
            (lambda parts: at(parts, "Integer(1)", "__import__(1)"), "no arithmetic"),
            (lambda parts: parts.pop("models/model.json"), "holds no program"),
        ],
        ids=["pickle", "object", "pickled weight", "outside", "call", "expression", "nothing"],
    )
    def test_what_could_run_code_is_refused_in_a_line(
        self, program: Path, tmp_path: Path, change: Callable[[Any], Any], words: str
    ) -> None:
        with zipfile.ZipFile(program) as archive:
            parts = {r.filename.partition("/")[2]: archive.read(r) for r in archive.infolist()}
        change(parts)
        with zipfile.ZipFile(tmp_path / "evil.pt2", "w") as archive:
            for name, content in parts.items():
                archive.writestr(f"evil/{name}", content)
        with pytest.raises(ConfigError, match=words) as caught:
            detector.load(tmp_path / "evil.pt2")
        assert "\n" not in str(caught.value)

    def test_half_a_file_is_refused_in_a_line(self, program: Path, tmp_path: Path) -> None:
        whole = program.read_bytes()
        (tmp_path / "half.pt2").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ConfigError, match="it is damaged"):
            detector.load(tmp_path / "half.pt2")


def at(parts: dict[str, bytes], old: str, new: str) -> None:
    """Replaces a text wherever it stands in the JSON of an archive."""
    for name in parts:
        if name.endswith(".json"):
            parts[name] = parts[name].replace(old.encode(), new.encode())


def test_expressions_are_arithmetic() -> None:
    assert is_arithmetic("Add(FloorDiv(Symbol('s54', positive=True, integer=True), Integer(2)))")
    assert is_arithmetic("s0*32 - 1")
    for text in ("os.system('x')", "__import__('os')", "open('x')", "s0.__class__", 'f"x"', "[1]"):
        assert not is_arithmetic(text)
    assert is_plain_tree('[1, {"type": "builtins.tuple", "context": "null", "children_spec": []}]')
    assert not is_plain_tree('[1, {"type": "os.system", "context": "null"}]')
    for name in ("torch.ops.aten.from_file.default", "_operator.attrgetter", "#a", "os.system"):
        assert refusal("nodes", "target", name) is not None
    assert refusal("nodes", "target", "torch.ops.aten.__and__.Tensor") is None

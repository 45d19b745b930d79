"""The page of made-up studies."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detector.errors import ConfigError
from detector.laboratory.compare import statistics, study, verdict
from detector.laboratory.compare.study import Files
from detector.laboratory.report.report import write_report

EVIL = "<script>alert(1)</script>"

EDGES = [i / 40 for i in range(41)]

FIGURES = {
    *("ap", "ap_over_training", "gradient", "mining", "p_t"),
    *("gradient_by_p_t", "cumulative_foreground"),
    *("cumulative_background", "reliability", "scores", "initial_loss"),
    *("images_focal", "images_ssd"),
}


def run(loss: str, seed: int, ap: float) -> dict[str, Any]:
    """A finished run as results.json has it."""
    return {
        **{"loss": loss, "seed": seed, "folder": f"runs/{loss}/seed_{seed}", "state": "done"},
        **{"message": "", "step": 40, "images": f"chain{seed}", "AP": ap, "AP50": ap, "AP75": ap},
        **{"APs": None, "APm": ap, "APl": ap, "per_class": {EVIL: ap, "cat": None}},
        "ap_over_training": [{"step": s, "AP": ap * s / 40, "AP50": ap} for s in (20, 40)],
        "initial_loss": {"foretold": {"loss_class": 1.0}, "measured": {"loss_class": 1.1}},
        **{"seconds": 9.0, "images_per_second": 10.0, "memory_gb": 1.5},
        "optimal_lrp": {"value": 1 - ap},
        "calibration": {"raw": {"D-ECE": 0.2}, "link_inverse": None, "platt": {"D-ECE": 0.1}},
        "score_counts": {
            **{"iou": 0.5, "edges": [0.0, 0.5, 1.0], "right": [1, 3], "wrong": [4, 1]},
            "score_sums": [1.0, 3.2],
        },
    }


def failed(loss: str, seed: int) -> dict[str, Any]:
    return {
        **{"loss": loss, "seed": seed, "folder": f"runs/{loss}/seed_{seed}", "images": None},
        **{"state": "diverged", "message": f"no finite gradient in {EVIL}.jpg", "step": 12},
    }


def write_study(folder: Path, runs: list[dict[str, Any]]) -> Path:
    losses = list(dict.fromkeys(run["loss"] for run in runs))
    seeds = sorted({run["seed"] for run in runs})
    measures = ("D-ECE", "optimal LRP", "calibrators")
    content = {
        **{"losses": losses, "arms": {loss: f"loss={loss}" for loss in losses}, "seeds": seeds},
        **{
            "steps": 40,
            "lr_search": None,
            "runs": runs,
            "conventions": dict.fromkeys(measures, ""),
        },
        "summary": statistics.summary(runs, losses),
        "comparisons": statistics.comparisons(runs, {}, losses, draws=0),
    }
    assert len(content["comparisons"]) == len(list(combinations(losses, 2)))
    split = {"images": 8, "objects": 9, "classes": [EVIL, "cat"], "fingerprint": "f" * 64}
    asked = {
        **{"data": {"train": split, "val": split, "name": EVIL}, "command": f"compare {EVIL}"},
        **{"guided_scale": False, "versions": {"torch": "2"}},
        "hardware": {"processor": "P", "processors": 2, "gpus": []},
    }
    study.write_json(Files(folder).results, {**content, "verdict": verdict.in_words(content)})
    study.write_json(Files(folder).study, asked)
    return folder


def write_probe(folder: Path) -> None:
    """What a run with probe.enabled=true leaves."""
    (folder / "images").mkdir(parents=True)
    histogram = {"edges": EDGES, "foreground": [1] * 40, "background": [9] * 40}
    lines = [
        {
            **{"step": s, "negative_share": 0.9, "hardest_share": 0.4, "num_background": 360},
            **{"selected_background": 12, "selected_score": 0.3, "p_t": histogram},
            "gradient": histogram,
        }
        for s in (1, 20, 40)
    ]
    (folder / "steps.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    falling = [float(40 - i) for i in range(40)]
    part = {
        "edges": EDGES,
        "counts": [1] * 40,
        "losses": dict.fromkeys(["0", "0.5", "1", "2"], falling),
    }
    study.write_json(folder / "final.json", {"foreground": part, "background": part})
    truth = [{"image_id": 7, "category_id": 1, "bbox": [10, 10, 30, 20]}]
    moment = {"step": 1, "detections": [{**truth[0], "score": 0.9}]}
    study.write_json(
        folder / "images.json",
        {
            **{"image_ids": [7], "truth": truth, "sizes": {"7": [80, 60]}},
            **{"start": moment, "middle": moment, "end": moment},
        },
    )
    Image.new("RGB", (40, 30), "gray").save(folder / "images" / "7.png")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two losses, two seeds, one of which failed, with all there is to record."""
    folder = tmp_path_factory.mktemp("full")
    runs = [run("focal", 0, 0.4), run("ssd", 0, 0.3), run("focal", 1, 0.42), failed("ssd", 1)]
    for one in runs:
        write_probe(folder / one["folder"] / "probe")
    write_report(write_study(folder, runs))
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a study whose runs recorded nothing, and the only one failed."""
    folder = write_study(tmp_path_factory.mktemp("bare"), [failed("focal", 0)])
    return write_report(folder).read_text()


def page_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def sources(page: str) -> list[str]:
    return re.findall(r'<img src="([^"]*)"', page)


def test_names_of_classes_and_files_are_shown_as_text(full: Path) -> None:
    page = page_of(full)
    assert "<script" not in page.lower()
    # The class in its table and list, the data, the command and the message of the failed run.
    assert page.count(html.escape(EVIL)) >= 5


def test_every_picture_is_inside_the_page_and_whole(full: Path) -> None:
    found = sources(page_of(full))
    assert len(found) == len(FIGURES)
    for source in found:
        assert source.startswith("data:image/")
        Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).load()


def test_the_page_asks_for_nothing_from_outside_of_it(full: Path) -> None:
    page = page_of(full)
    addresses = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)|@import', page)
    assert addresses
    assert all(first.startswith("data:") for first, _ in addresses)
    assert len(page) < 5e6


def test_figures_are_files_too(full: Path) -> None:
    assert {path.stem for path in (full / "figures").glob("*.png")} == FIGURES


def test_the_verdict_comes_before_the_numbers_and_failed_runs_are_named(full: Path) -> None:
    page = page_of(full)
    said = page.index("focal is above ")
    named = page.index("ssd, seed 1: diverged after step 12")
    assert said < named < page.index("<table>")


def test_the_table_has_means_and_the_range_of_the_seeds(full: Path) -> None:
    text = re.sub(r"\s+", " ", page_of(full))
    assert '<td class="best">0.410<span>0.400\u20130.420</span></td>' in text
    assert "<td>0.300</td>" in text  # one seed: no range


def test_what_was_not_recorded_leaves_a_sentence_and_no_picture(bare: str) -> None:
    assert sources(bare) == []
    assert "probe.enabled=true records it" in bare
    assert "No run has ended with an AP." in bare
    assert "No run has ended, so nothing is compared." in bare


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no study \(no results.json\)"):
        write_report(tmp_path)

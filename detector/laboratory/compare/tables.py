"""The results of a study as CSV, as Markdown and for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from detector.evaluation.text import aligned, digits, markdown
from detector.laboratory.compare.study import Files, Plain, read_json
from detector.laboratory.compare.verdict import ranking

ACCURACY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "optimal_lrp")
COST = ("images_per_second", "seconds", "memory_gb")
CALIBRATORS = ("raw", "link_inverse", "temperature", "platt", "isotonic")
MEASURE = "D-ECE"
"""What the table of calibration shows; results.json has the others."""


def write(files: Files, content: Plain) -> None:
    """results.csv, a row for each run, and report.md."""
    files.table.write_text(as_csv(content["runs"], content.get("metric", "AP")))
    files.report.write_text(as_markdown(content, read_json(files.study)))


def as_csv(runs: Sequence[Plain], metric: str = "AP") -> str:
    """A row for each run, empty where a number does not exist."""
    classes = next((list(run["per_class"]) for run in runs if "per_class" in run), [])
    calibration = [f"{MEASURE} {kind}" for kind in CALIBRATORS]
    more = [] if metric in ACCURACY else [metric]
    names = ["loss", "seed", "state", *ACCURACY, *more, *calibration, *COST, "step", "images"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *(f"AP {name}" for name in classes)])
    for run in runs:
        row = {**run, "optimal_lrp": run.get("optimal_lrp", {}).get("value")}
        for kind in CALIBRATORS:
            row[f"{MEASURE} {kind}"] = (run.get("calibration", {}).get(kind) or {}).get(MEASURE)
        cells = [row.get(name) for name in names]
        writer.writerow([*cells, *(run.get("per_class", {}).get(name) for name in classes)])
    return text.getvalue()


def as_markdown(content: Plain, study: Plain) -> str:
    """The whole report without figures."""
    data = study["data"]
    parts = [
        "# Which loss?",
        "\n".join(f"- {escape(line)}" for line in content["verdict"]),
        "## What was done",
        f"`{study['command']}`",
        f"{len(content['losses'])} losses, seeds {', '.join(map(str, content['seeds']))}, "
        f"{content['steps']} steps each, on {escape(data['name'])}: {data['train']['images']} "
        f"train and {data['val']['images']} val images with {data['val']['objects']} objects. "
        f"{study['hardware']['processor']}, torch {study['versions']['torch']}.",
        _searched(content),
        "## Accuracy",
        "Means over the finished seeds; AP with the range of the seeds.",
        escaped_markdown(accuracy(content["summary"], content.get("metric", "AP"))),
        "## AP by class",
        escaped_markdown(by_class(content["summary"])),
        "## Calibration",
        f"{MEASURE}, lower is better; mean over the seeds.",
        escaped_markdown(calibration(content["summary"])),
        f"{MEASURE}: {content['conventions'][MEASURE]}. Calibrators "
        f"{content['conventions']['calibrators']}. -: the loss has no such map, or nothing to fit.",
        "## Time and memory",
        escaped_markdown(cost(content["summary"])),
        "## Every difference",
        escaped_markdown(pairs(content["comparisons"], content.get("metric_in_words", "AP"))),
        "## Images",
        "The chain over the images of each step and their random draws; it is the same for all "
        "losses of a seed, or there would be no report.",
        escaped_markdown(images(content["runs"])),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _searched(content: Plain) -> str:
    found = content["lr_search"]
    if found is None:
        return ""
    factors = ", ".join(f"{loss} x {factor:g}" for loss, factor in found["factors"].items())
    return (
        f"Learning rates chosen on {found['held_out_of_train']:.0%} of the train images, held out "
        f"for it, with seed {found['seed']}: {escape(factors)}."
    )


def accuracy(summary: list[Plain], metric: str = "AP") -> list[list[str]]:
    """By falling metric, which has a column of its own and its range."""
    others = [name for name in ACCURACY if name != metric]
    heads = [name.replace("optimal_lrp", "optimal LRP") for name in others]
    rows = [["loss", "seeds", metric, "range", *heads]]
    for row in [*ranking(summary, metric), *(row for row in summary if row[metric] is None)]:
        span = f"{digits(row[f'{metric}_low'])} .. {digits(row[f'{metric}_high'])}"
        rest = [digits(row[name]) for name in others]
        rows.append([row["loss"], str(row["seeds_done"]), digits(row[metric]), span, *rest])
    return rows


def by_class(summary: list[Plain]) -> list[list[str]]:
    names = next((list(row["per_class"]) for row in summary if row["per_class"]), [])
    rows = [["loss", *names]]
    for row in ranking(summary):
        rows.append([row["loss"], *(digits(row["per_class"][name]) for name in names)])
    return rows


def calibration(summary: list[Plain]) -> list[list[str]]:
    rows = [["loss", *(kind.replace("_", " ") for kind in CALIBRATORS)]]
    for row in ranking(summary):
        found = [row["calibration"].get(kind, {}).get(MEASURE) for kind in CALIBRATORS]
        rows.append([row["loss"], *map(digits, found)])
    return rows


def cost(summary: list[Plain]) -> list[list[str]]:
    rows = [["loss", "images/s", "seconds of training", "peak memory in GB"]]
    for row in ranking(summary):
        places = zip(COST, (1, 0, 2), strict=True)
        rows.append([row["loss"], *(digits(row[name], n) for name, n in places)])
    return rows


def pairs(comparisons: list[Plain], metric: str = "AP") -> list[list[str]]:
    head = f"difference in {metric}"
    rows = [["loss", "against", head, "low", "high", "low and high are", "verdict"]]
    for row in comparisons:
        numbers = [digits(row[name]) for name in ("mean", "low", "high")]
        number = len(row["differences"])
        kinds = {"interval": "95 % interval", "range": f"range of {number} seeds", "none": "-"}
        kind = kinds[row["kind"]].replace(" 1 seeds", " 1 seed")
        rows.append([row["loss"], row["against"], *numbers, kind, row["verdict"] or "-"])
    return rows


def images(runs: list[Plain]) -> list[list[str]]:
    found = {run["seed"]: run["images"] for run in runs if run["state"] == "done"}
    return [["seed", "images"], *([str(seed), str(chain)] for seed, chain in found.items())]


def escaped_markdown(rows: list[list[str]]) -> str:
    """A Markdown table of texts that may hold anything; a sentence in place of a head alone."""
    if len(rows) < 2:
        return "No run has ended."
    return markdown([[*map(escape, row)] for row in rows])


def escape(text: str) -> str:
    """Text that Markdown shows as it is, also where it holds tags or bars."""
    for sign, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
        text = text.replace(sign, shown)
    return text


def console(content: Plain) -> str:
    """Accuracy for a terminal."""
    return "\n".join(aligned(accuracy(content["summary"], content.get("metric", "AP"))))

"""What is said of made-up results whose answer is known."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from detector.laboratory.compare.statistics import spread
from detector.laboratory.compare.verdict import compared, in_words


def results(aps: dict[str, list[float | None]], interval: float | None = None) -> dict[str, Any]:
    """results.json as far as the verdict reads it. aps: by seed, None for a run that failed.

    interval: half its width, from five seeds on.
    """
    runs: list[dict[str, Any]] = []
    summary: list[dict[str, Any]] = []
    for loss, values in aps.items():
        for seed, ap in enumerate(values):
            failed = {"state": "diverged", "message": "no finite gradient 5 times", "step": 12}
            done = {"state": "done", "message": "", "step": 100}
            runs.append({"loss": loss, "seed": seed, "AP": ap, **(failed if ap is None else done)})
        known = [ap for ap in values if ap is not None]
        mean = sum(known) / len(known) if known else None
        summary.append({"loss": loss, "AP": mean, "seeds_done": len(known)})
    pairs = []
    for one, other in combinations(aps, 2):
        both = zip(aps[one], aps[other], strict=True)
        differences = [a - b for a, b in both if a is not None and b is not None]
        row = {"loss": one, "against": other, "differences": differences}
        row |= spread(differences, None)
        if interval is not None and differences:
            low, high = row["mean"] - interval, row["mean"] + interval
            verdict = "above" if low > 0 else "below" if high < 0 else "no difference shown"
            row |= {"kind": "interval", "low": low, "high": high, "verdict": verdict}
        pairs.append(row)
    return {"runs": runs, "summary": summary, "comparisons": pairs}


def test_a_clear_winner_is_named_with_its_intervals() -> None:
    lines = in_words(results({"ssd": [0.2] * 5, "focal": [0.4] * 5, "yolo": [0.1] * 5}, 0.05))
    assert lines == [
        "focal is above ssd and yolo: mean AP 0.400 over 5 seeds.",
        "focal against ssd: +0.200 AP (95% interval +0.150 to +0.250): a difference is shown, "
        "above.",
        "focal against yolo: +0.300 AP (95% interval +0.250 to +0.350): a difference is shown, "
        "above.",
        "Intervals: paired differences resampled over seeds and val images, 95% for each pair by "
        "itself, not for all pairs at once.",
    ]


def test_no_difference_is_said_where_none_is_shown() -> None:
    lines = in_words(results({"ssd": [0.31] * 5, "focal": [0.32] * 5, "yolo": [0.1] * 5}, 0.05))
    assert lines[0] == (
        "focal has the highest mean AP, 0.320 over 5 seeds, but no difference is shown between it "
        "and ssd."
    )
    assert lines[1] == (
        "focal against ssd: +0.010 AP (95% interval -0.040 to +0.060): no difference shown."
    )
    assert lines[2].endswith("a difference is shown, above.")


def test_fewer_than_five_seeds_get_a_range_that_nobody_calls_an_interval() -> None:
    lines = in_words(results({"ssd": [0.20, 0.22, 0.18], "focal": [0.40, 0.41, 0.42]}))
    assert lines == [
        "focal is above ssd with every seed: mean AP 0.410 over three seeds.",
        "focal against ssd: +0.210 AP (range of three seeds: +0.190 to +0.240): above with each "
        "seed.",
        "Three seeds are too few for an interval (from 5 on one is given): a range of seeds says "
        "how far these runs lie apart, not where others would.",
    ]


def test_seeds_that_disagree_show_no_difference() -> None:
    lines = in_words(results({"ssd": [0.20, 0.42], "focal": [0.40, 0.30]}))
    assert lines[0].startswith("focal has the highest mean AP, 0.350 over two seeds, but no ")
    assert lines[1].endswith("(range of two seeds: -0.120 to +0.200): no difference shown.")


def test_one_seed_is_one_seed() -> None:
    lines = in_words(results({"ssd": [0.2], "focal": [0.4]}))
    assert lines[1] == "focal against ssd: +0.200 AP (one seed): above with the one seed there is."
    assert lines[2].startswith("One seed is too few for an interval")


def test_a_run_that_failed_is_named_before_all_else() -> None:
    lines = in_words(results({"ssd": [0.2, None, 0.3], "focal": [0.4, 0.4, 0.4]}))
    assert lines[0] == (
        "ssd, seed 1: diverged after step 12 (no finite gradient 5 times); it is in no number "
        "below."
    )
    assert "(range of two seeds: +0.100 to +0.200)" in lines[2]


def test_a_loss_without_any_run_is_not_ranked() -> None:
    lines = in_words(results({"ssd": [None, None], "focal": [0.4, 0.4]}))
    assert [line.partition(":")[0] for line in lines[:2]] == ["ssd, seed 0", "ssd, seed 1"]
    assert lines[2:] == ["focal: mean AP 0.400; no other loss to compare with."]


def test_losses_without_a_seed_in_common_are_not_compared() -> None:
    lines = in_words(results({"ssd": [0.2, None], "focal": [None, 0.4]}))
    assert "focal against ssd: no seed that both have finished, so they are not compared." in lines
    assert (
        "focal has the highest mean AP, 0.400 over one seed, but shares no seed with another."
        in (lines)
    )
    assert not any("above" in line for line in lines)


def test_nothing_done_is_nothing_said() -> None:
    assert in_words(results({"ssd": [None]}))[-1] == "No run has ended, so nothing is compared."


def test_a_comparison_reads_the_same_from_both_ends() -> None:
    pairs = results({"a": [0.1, 0.2], "b": [0.4, 0.3]})["comparisons"]
    there, back = compared(pairs, "a", "b"), compared(pairs, "b", "a")
    assert (there["verdict"], back["verdict"]) == ("below", "above")
    assert (there["low"], there["high"]) == (-back["high"], -back["low"])


def test_steps_that_were_left_out_are_named() -> None:
    content = results({"ssd": [0.2] * 5, "focal": [0.4] * 5}, 0.05)
    content["runs"][3]["skipped"] = 2
    content["runs"][4]["skipped"] = 0
    assert in_words(content)[0] == (
        "ssd, seed 3: 2 of 100 steps had a gradient that was not finite and changed nothing."
    )
    assert sum("not finite" in line for line in in_words(content)) == 1


def test_a_single_seed_is_not_called_every_seed() -> None:
    line = in_words(results({"ssd": [0.2], "focal": [0.4]}))[0]
    assert line == "focal is above ssd with the one seed there is: mean AP 0.400 over one seed."


def curves(content: dict[str, Any], aps: dict[str, list[float]]) -> dict[str, Any]:
    """The results with AP over training, at steps 100, 200, ..."""
    for run in content["runs"]:
        points = enumerate(aps[run["loss"]], 1)
        run["ap_over_training"] = [{"step": 100 * i, "AP": ap} for i, ap in points]
    return {**content, "losses": list(aps), "epochs": 2.5}


def test_curves_that_still_rise_are_named_with_the_epoch_at_which_the_runs_stopped() -> None:
    content = results({"ssd": [0.2] * 5, "focal": [0.4] * 5}, 0.05)
    lines = in_words(curves(content, {"ssd": [0.1, 0.195, 0.2], "focal": [0.1, 0.3, 0.4]}))
    assert lines[-1] == (
        "AP still rose between steps 200 and 300 (epoch 2.5), where the runs stopped: focal by "
        "0.100; longer runs may end in another order."
    )


def test_nothing_is_said_of_curves_that_are_level_or_were_not_kept() -> None:
    content = results({"ssd": [0.2] * 5, "focal": [0.4] * 5}, 0.05)
    expected = in_words(content)
    level = {"ssd": [0.1, 0.195, 0.2], "focal": [0.1, 0.4, 0.4]}
    assert in_words(curves(content, level)) == expected
    assert in_words(curves(content, {"ssd": [0.2], "focal": [0.4]})) == expected


def test_a_class_that_no_loss_finds_is_named() -> None:
    content = results({"ssd": [0.2] * 5, "focal": [0.4] * 5}, 0.05)
    content["summary"][0]["per_class"] = {"a": 0.4, "b": 0.0, "c": 0.004, "d": None}
    content["summary"][1]["per_class"] = {"a": 0.8, "b": 0.001, "c": 0.1, "d": None}
    assert in_words(content)[-1].startswith("No loss finds b (AP below 0.005 for each): ")


def test_another_metric_is_called_by_its_name_and_decides_the_order() -> None:
    content = results({"ssd": [0.2] * 5, "focal": [0.4] * 5}, 0.05)
    for row in (*content["summary"], *content["runs"]):
        row["recall@fppi=0.1"] = {"ssd": 0.7, "focal": 0.5}[row["loss"]]
    for row in content["comparisons"]:
        row |= {"mean": 0.2, "low": 0.1, "high": 0.3, "verdict": "above"}
    words = "recall at 0.1 false alarms per image"
    lines = in_words({**content, "metric": "recall@fppi=0.1", "metric_in_words": words})
    assert lines[0] == f"ssd is above focal: mean {words} 0.700 over 5 seeds."
    assert lines[1].startswith(f"ssd against focal: +0.200 {words} (95% interval ")

"""What a study says, in words; each word follows from a number in its results."""

from __future__ import annotations

from typing import Any

from detector.laboratory.compare.statistics import FEWEST, LEVEL

Row = dict[str, Any]


def in_words(content: Row) -> list[str]:
    """Sentences, the most important first. content: of results.json, see `collect`."""
    lines = [*failures(content["runs"]), *skips(content["runs"])]
    metric = content.get("metric", "AP")
    words = content.get("metric_in_words", "AP")
    ranked = ranking(content["summary"], metric)
    if not ranked:
        return [*lines, "No run has ended, so nothing is compared."]
    best = ranked[0]
    if len(ranked) == 1:
        lines.append(
            f"{best['loss']}: mean {words} {best[metric]:.3f}; no other loss to compare with."
        )
        return lines + outlook(content)
    against = [compared(content["comparisons"], best["loss"], row["loss"]) for row in ranked[1:]]
    lines.append(headline(best, against, metric, words))
    lines += [difference(row, words) for row in against]
    lines.append(how_sure(against))
    return lines + outlook(content)


def failures(runs: list[Row]) -> list[str]:
    """A sentence for each run that did not end."""
    return [
        f"{run['loss']}, seed {run['seed']}: {run['state']}"
        + (f" after step {run['step']}" if run["step"] else "")
        + (f" ({run['message']})" if run["message"] else "")
        + "; it is in no number below."
        for run in runs
        if run["state"] != "done"
    ]


def skips(runs: list[Row]) -> list[str]:
    """A sentence for each finished run in which steps were left out."""
    return [
        f"{run['loss']}, seed {run['seed']}: {run['skipped']} of {run['step']} steps had a "
        "gradient that was not finite and changed nothing."
        for run in runs
        if run["state"] == "done" and run.get("skipped")
    ]


def ranking(summary: list[Row], metric: str = "AP") -> list[Row]:
    """The losses with an AP, or another metric, the highest mean first."""
    known = [row for row in summary if row[metric] is not None]
    return sorted(known, key=lambda row: -row[metric])


def compared(comparisons: list[Row], one: str, other: str) -> Row:
    """The comparison of two losses as seen from `one`."""
    for row in comparisons:
        if (row["loss"], row["against"]) == (one, other):
            return row
        if (row["loss"], row["against"]) == (other, one):
            return turned(row)
    raise KeyError(f"{one} and {other} are not compared")


def turned(row: Row) -> Row:
    """The same comparison the other way round."""
    words = {"above": "below", "below": "above"}
    return {
        **row,
        "loss": row["against"],
        "against": row["loss"],
        "differences": [-value for value in row["differences"]],
        "mean": None if row["mean"] is None else -row["mean"],
        "low": None if row["high"] is None else -row["high"],
        "high": None if row["low"] is None else -row["low"],
        "verdict": words.get(row["verdict"], row["verdict"]),
    }


def headline(best: Row, against: list[Row], metric: str = "AP", words: str = "AP") -> str:
    """Whether there is a winner. against: the best loss compared with each other one. words: what
    the metric is called."""
    mean = f"{best[metric]:.3f} over {_seeds(best['seeds_done'])}"
    against = [row for row in against if row["kind"] != "none"]
    level = [row["against"] for row in against if row["verdict"] != "above"]
    few = any(row["kind"] == "range" for row in against)
    if not against:
        lone = f"{mean}, but shares no seed with another."
        return f"{best['loss']} has the highest mean {words}, {lone}"
    if not level:
        word = "every seed" if best["seeds_done"] > 1 else "the one seed there is"
        each = f" with {word}" if few else ""
        others = f"{_list([row['against'] for row in against])}{each}: mean {words} {mean}."
        return f"{best['loss']} is above {others}"
    return (
        f"{best['loss']} has the highest mean {words}, {mean}, but no difference is shown between "
        f"it and {_list(level)}."
    )


def difference(row: Row, words: str = "AP") -> str:
    """A sentence on two losses."""
    pair = f"{row['loss']} against {row['against']}"
    if row["kind"] == "none":
        return f"{pair}: no seed that both have finished, so they are not compared."
    span = f"{row['low']:+.3f} to {row['high']:+.3f}"
    number = len(row["differences"])
    if row["kind"] == "interval":
        spread = f"{LEVEL:.0%} interval {span}"
    elif number == 1:
        spread = "one seed"
    else:
        spread = f"range of {_seeds(number)}: {span}"
    shown = row["verdict"] if row["verdict"] == "no difference shown" else _shown(row)
    return f"{pair}: {row['mean']:+.3f} {words} ({spread}): {shown}."


def _shown(row: Row) -> str:
    if row["kind"] == "interval":
        return f"a difference is shown, {row['verdict']}"
    number = len(row["differences"])
    return f"{row['verdict']} with " + ("the one seed there is" if number == 1 else "each seed")


def outlook(content: Row) -> list[str]:
    """What the numbers would be with longer runs, and what no loss has learnt."""
    return [*still_rising(content), *found_by_none(content["summary"])]


RISING = 0.05
"""Share of the AP at the end that came in the last part of a run from which its curve still rises:
20 such parts would have made all of it, and a run has 6 unless it is told otherwise."""


def still_rising(content: Row) -> list[str]:
    """A sentence where the AP of losses had not levelled off between the last two evaluations."""
    gains: dict[str, float] = {}
    last: tuple[int, int] = (0, 0)
    for loss in content.get("losses", []):
        curves = [
            [(point["step"], point["AP"]) for point in run["ap_over_training"]]
            for run in content["runs"]
            if run["loss"] == loss and run.get("ap_over_training")
        ]
        ends = [curve[-2:] for curve in curves if len(curve) > 1]
        if not ends or any(ap is None for end in ends for _, ap in end):
            continue
        last = (ends[0][0][0], ends[0][1][0])
        gain = sum(after - before for (_, before), (_, after) in ends) / len(ends)
        if gain > RISING * sum(after for _, (_, after) in ends) / len(ends):
            gains[loss] = gain
    if not gains:
        return []
    by = ", ".join(f"{loss} by {gain:.3f}" for loss, gain in gains.items())
    epochs = content.get("epochs")
    when = f" (epoch {epochs:.1f})" if epochs else ""
    return [
        f"AP still rose between steps {last[0]} and {last[1]}{when}, where the runs stopped: {by}; "
        "longer runs may end in another order."
    ]


NOTHING = 0.005
"""Of AP: what three digits show as .00, or less."""


def found_by_none(summary: list[Row]) -> list[str]:
    """A sentence for the classes on which all losses tie at nothing."""
    tables = [row["per_class"] for row in summary if row.get("per_class")]
    names = [
        name
        for name in (tables[0] if tables else {})
        if all(t[name] is not None and t[name] < NOTHING for t in tables)
    ]
    if not names:
        return []
    return [
        f"No loss finds {_list(names)} (AP below {NOTHING} for each): this compares how they do on "
        "the other classes; `detector audit` says what stands in the way."
    ]


def how_sure(against: list[Row]) -> str:
    """What the numbers of the other sentences mean, and what they leave out."""
    if any(row["kind"] == "range" for row in against):
        fewest = min(len(row["differences"]) for row in against if row["kind"] == "range")
        return (
            f"{_seeds(fewest).capitalize()} are too few for an interval (from {FEWEST} on one is "
            "given): a range of seeds says how far these runs lie apart, not where others would."
        ).replace("seed are", "seed is")
    return (
        f"Intervals: paired differences resampled over seeds and val images, {LEVEL:.0%} for each "
        "pair by itself, not for all pairs at once."
    )


def _seeds(number: int) -> str:
    words = {1: "one seed", 2: "two seeds", 3: "three seeds", 4: "four seeds"}
    return words.get(number, f"{number} seeds")


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

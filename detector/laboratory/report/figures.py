"""The figures of a study, each with how to read it, or with why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.laboratory.compare.study import Plain
from detector.laboratory.compare.verdict import ranking
from detector.laboratory.report import records
from detector.laboratory.report.records import Records
from detector.plots.studies import curves as study_curves
from detector.plots.studies import panels as study_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_PROBE = (
    "The runs recorded nothing of their training, so there is no picture; "
    "probe.enabled=true records it."
)


@dataclass(frozen=True)
class Entry:
    """A place of the page for a figure. missing: what stands there where there is nothing to draw.

    name: of the file. draw: makes it; None where there is nothing to draw.
    """

    name: str
    title: str
    caption: str
    missing: str
    draw: Callable[[], Figure] | None


@dataclass(frozen=True)
class Subject:
    """folder: of the study. content: of results.json. recorded: by its runs."""

    folder: Path
    content: Plain
    recorded: Records

    @property
    def losses(self) -> list[str]:
        return self.content["losses"]

    @property
    def done(self) -> list[Plain]:
        return [run for run in self.content["runs"] if run["state"] == "done"]

    @property
    def order(self) -> list[str]:
        """The losses that have an AP, the best first: the order of panels."""
        return [row["loss"] for row in ranking(self.content["summary"])]

    def sorted(self, parts: Mapping[str, Any]) -> dict[str, Any]:
        """Panels of losses in `order`, those without an AP last."""
        names = [*self.order, *(loss for loss in self.losses if loss not in self.order)]
        return {name: parts[name] for name in names if name in parts}


def of_accuracy(subject: Subject) -> list[Entry]:
    """AP at the end, and over training."""
    aps = {
        loss: [r["AP"] for r in subject.done if r["loss"] == loss and r["AP"] is not None]
        for loss in subject.losses
    }
    aps = {loss: values for loss, values in aps.items() if values}
    series = {
        loss: [
            [(point["step"], point["AP"]) for point in run["ap_over_training"]]
            for run in subject.done
            if run["loss"] == loss
        ]
        for loss in subject.losses
    }
    series = {loss: runs for loss, runs in series.items() if any(len(run) > 1 for run in runs)}
    return [
        Entry(
            "ap",
            "AP of every run",
            "Each dot is a run with its own seed, the bar their mean. Where the dots of two losses "
            "overlap, the seed matters as much as the loss.",
            "No run has ended with an AP.",
            (lambda: study_curves.draw_seeds(aps, subject.losses, label="AP")) if aps else None,
        ),
        Entry(
            "ap_over_training",
            "AP over training",
            "Lines are means over the seeds, bands reach from the least to the greatest seed; with "
            "one seed there is no band. A line that is higher early learns faster, one that is "
            "higher at the right end ends better.",
            "No run was evaluated more than once, so there is no course to draw; points=6 "
            "evaluates six times.",
            (lambda: study_curves.draw_over_training({"AP on val": series}, subject.losses))
            if series
            else None,
        ),
    ]


def of_gradient(subject: Subject) -> list[Entry]:
    """Where the gradient lies, over training."""
    steps = subject.recorded.steps
    shares = {
        "share of background anchors": records.over_training(steps, _get("negative_share")),
        "share of the hardest 1 % of anchors": records.over_training(steps, _get("hardest_share")),
    }
    there = {label: series for label, series in shares.items() if series}
    return [
        Entry(
            "gradient",
            "Whom the gradient listens to",
            "Of the sum of the absolute gradients of the class loss with respect to the logits: "
            "left, what lies on background anchors; right, what lies on the hundredth of the "
            "anchors whose gradients are greatest. Near 100 % on the left, training is mostly "
            "about saying no; near 1 % on the right, all anchors pull alike. Means over seeds, "
            "bands from the least to the greatest.",
            NO_PROBE,
            (
                lambda: study_curves.draw_over_training(
                    there, subject.losses, percent=True, height=2.6
                )
            )
            if there
            else None,
        )
    ]


def of_anchors(subject: Subject) -> list[Entry]:
    """What the models think of anchors: p_t, and figure 4 of the focal paper."""
    return [
        _by_p_t(
            subject,
            "p_t",
            "How sure of what is right",
            "p_t is the probability that the model gives to what is true of an anchor: that it has "
            "an object of its class, or that it has none. Shares of the anchors of each colour; "
            "dotted at the first record, solid at the last. Training should move both to the "
            "right. The axis is even in log(p_t / (1 - p_t)); its outermost bins have all beyond.",
            "share of the anchors",
        ),
        _by_p_t(
            subject,
            "gradient",
            "Which anchors teach",
            "The same axis, but of the absolute gradient of the class loss in place of the number "
            "of anchors: shares of the sum over both colours. What lies far to the right is "
            "learnt already; a loss that still has gradient there spends it on easy anchors.",
            "share of the gradient",
        ),
        *(_cumulative(subject, kind) for kind in ("foreground", "background")),
    ]


def _by_p_t(subject: Subject, key: str, title: str, caption: str, label: str) -> Entry:
    found = {
        loss: records.first_and_last(runs, key) for loss, runs in subject.recorded.steps.items()
    }
    is_gradient = key == "gradient"
    panels = {
        loss: {**part, "of_both": is_gradient}
        for loss, part in subject.sorted(found).items()
        if part
    }
    return Entry(
        "gradient_by_p_t" if is_gradient else key,
        title,
        caption,
        NO_PROBE,
        (lambda: study_panels.small_multiples(panels, study_panels.p_t, x="p_t", y=label))
        if panels
        else None,
    )


def _cumulative(subject: Subject, kind: str) -> Entry:
    found = {
        loss: records.cumulative(parts, kind) for loss, parts in subject.recorded.final.items()
    }
    curves = subject.sorted({loss: part for loss, part in found.items() if part})
    means = {
        "foreground": "The curves should lie close together: a greater gamma takes little away "
        "from objects.",
        "background": "The further a curve hugs the lower right corner, the more of the loss comes "
        "from few hard anchors: with gamma = 2 the easy background hardly counts.",
    }
    return Entry(
        f"cumulative_{kind}",
        f"Which anchors make the loss: {kind}",
        f"Figure 4 of the focal loss paper (Lin et al. 2017) on the trained models. {kind.title()} "
        "anchors of val images are sorted by their loss, the easiest first; the curve is the share "
        "of the whole loss that they have so far, if it were the focal loss with this gamma (0 is "
        f"cross entropy). {means[kind]}",
        NO_PROBE,
        (
            lambda: study_panels.small_multiples(
                curves,
                study_panels.cumulative,
                x=f"share of the {kind} anchors, easiest first",
                y="share of their loss",
            )
        )
        if curves
        else None,
    )


def of_mining(subject: Subject) -> list[Entry]:
    """What the losses that select keep."""
    steps = {
        loss: runs
        for loss, runs in subject.recorded.steps.items()
        if any(_selected(row) is not None for run in runs for row in run)
    }
    panels = {
        "background that is selected": records.over_training(steps, _selected),
        "mean score of what is selected": records.over_training(steps, _get("selected_score")),
    }
    there = {label: series for label, series in panels.items() if series}
    missing = NO_PROBE if not subject.recorded.steps else "No loss here selects among anchors."
    return [
        Entry(
            "mining",
            "What hard mining selects",
            "Losses that learn from a part of the background only. Left, how large that part is; "
            "right, the mean score that the model gives to what was selected: high where mining "
            "finds false alarms, near 0 where nothing hard is left. Both axes are logarithmic.",
            missing,
            (
                lambda: study_curves.draw_over_training(
                    there, subject.losses, percent=True, log=True, height=2.6
                )
            )
            if there
            else None,
        )
    ]


def _get(key: str) -> Callable[[Plain], Any]:
    return lambda row: row.get(key)


def _selected(row: Plain) -> float | None:
    """The share of the background that a step learned from; None where it was all of it."""
    chosen, number = row.get("selected_background"), row.get("num_background")
    if not number or not chosen or chosen >= number:
        return None
    return chosen / number

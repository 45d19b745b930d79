"""The figures of what scores mean at the end, and of the first step."""

from __future__ import annotations

from detector.laboratory.report.figures import Entry, Subject
from detector.laboratory.report.scores import pooled
from detector.plots.studies import panels as study_panels


def of_scores(subject: Subject) -> list[Entry]:
    """What scores mean at the end, and the first step."""
    counts = {
        loss: [r["score_counts"] for r in subject.done if r["loss"] == loss and "score_counts" in r]
        for loss in subject.losses
    }
    parts = subject.sorted({loss: pooled(part) for loss, part in counts.items() if part})
    missing = "No finished run has counts of its scores."
    return [
        Entry(
            "reliability",
            "Do the scores mean what they say?",
            "Detections on val of all seeds together, in ten bins by their score, right at IoU 0.5 "
            "with the right class. The bar is the share that is right; the dot is the mean score, "
            "larger for more detections. A dot above its bar is overconfident, one below it "
            "underconfident. As the loss gives them, before any calibrator.",
            missing,
            (
                lambda: study_panels.small_multiples(
                    parts, study_panels.reliability, x="score", y="share that is right"
                )
            )
            if parts
            else None,
        ),
        Entry(
            "scores",
            "Scores of right and of wrong detections",
            "The same detections: how many there are of each score. The better a loss tells right "
            "from wrong, the less the two overlap; where no green lies at high scores, no "
            "threshold that sounds natural fits it.",
            missing,
            (
                lambda: study_panels.small_multiples(
                    parts, study_panels.scores, x="score", y="detections (logarithmic)"
                )
            )
            if parts
            else None,
        ),
        _initial(subject),
    ]


def _initial(subject: Subject) -> Entry:
    rows = []
    for loss in subject.losses:
        known = [r["initial_loss"] for r in subject.done if r["loss"] == loss]
        pairs = [
            (one["foretold"]["loss_class"], one["measured"]["loss_class"])
            for one in known
            if one and one.get("foretold") and one.get("measured")
        ]
        if pairs and min(map(min, pairs)) > 0:
            foretold, measured = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
            rows.append((loss, foretold, measured))
    return Entry(
        "initial_loss",
        "The first step, foretold and measured",
        "The class loss of the first step, foretold from the initial bias alone and measured. "
        "They should coincide; where they do not, something else than the bias decides: which "
        "anchors are selected, boxes whose quality the loss looks at, or a wrong initialisation. "
        "Losses differ in their units, so values are not to be compared from row to row.",
        "No finished run says what its first loss was.",
        (lambda: study_panels.draw_initial(rows)) if rows else None,
    )

"""The findings as tables for a terminal."""

from __future__ import annotations

from typing import Any

from detector.evaluation.text import aligned, digits


def text(numbers: dict[str, Any]) -> list[str]:
    """Lines. numbers: of `audit_summary.summary`."""
    return [
        headline(numbers),
        *table(LEVEL, numbers["levels"], "Anchors by level"),
        *table(SIZE, numbers["sizes"], "Objects by size (side at the model's size)"),
        *table(
            CLASS,
            numbers["per_class"],
            "Objects by class (reached: an anchor fits; weight: that of effective_number)",
        ),
        *loss_table(numbers),
        *class_advice(numbers),
        *advice(numbers),
    ]


def headline(numbers: dict[str, Any]) -> str:
    """The whole in a few lines."""
    now, (height, width) = numbers["now"], numbers["image_size"]
    return (
        f"{numbers['data']}: {numbers['images']} images (median {width} x {height} px as the model "
        f"sees them), {now['objects']} objects of {len(numbers['classes'])} classes\n"
        f"{per_one(now['background_per_positive'])} background to foreground anchors, "
        f"{now['ignored_share']:.2%} of all ignored; an anchor has an object with probability "
        f"{now['prior_any']:.2g}\n"
        f"{now['unreached']} objects reached by no anchor, {now['forced']} only by force; "
        f"mean best IoU {now['mean_best_iou']:.3f}"
    )


def per_one(value: float | None) -> str:
    """A ratio to one; "-" where there is none."""
    return "-" if value is None else f"{value:,.0f} : 1"


def share(value: float) -> str:
    return f"{value:.2%}"


def whole(value: int) -> str:
    return f"{value:,}"


def one_place(value: float | None) -> str:
    return digits(value, 1)


def two_places(value: float) -> str:
    return digits(value, 2)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


GROUP = (
    ("objects", "objects", whole),
    ("positives", "positives", whole),
    ("per object", "positives_per_object", one_place),
    ("unreached", "unreached", whole),
    ("forced", "forced", whole),
    ("best IoU", "mean_best_iou", digits),
    ("bg : fg", "background_per_positive", per_one),
)
"""Header, key and writing of each column."""

SIZE = (("side", "size", str), *GROUP)
CLASS = (
    ("class", "class", str),
    ("objects", "objects", whole),
    ("images", "images", whole),
    ("reached", "reached", percent),
    ("side px", "side", one_place),
    ("weight", "weight", two_places),
    *GROUP[1:],
)
LEVEL = (
    ("level", "level", str),
    ("stride", "stride", whole),
    ("anchors", "anchors", whole),
    ("positives", "positives", whole),
    ("background", "background", whole),
    ("ignored", "ignored_share", share),
    ("bg : fg", "background_per_positive", per_one),
)


def cells(columns: Any, rows: list[dict[str, Any]]) -> list[list[str]]:
    """Header and rows as text."""
    header = [name for name, _, _ in columns]
    return [header, *([write(row[key]) for _, key, write in columns] for row in rows)]


def table(columns: Any, rows: list[dict[str, Any]], title: str) -> list[str]:
    """A titled table."""
    return ["", title, *aligned(cells(columns, rows))]


LOSS_HEADER = ["loss", "prior", "first loss", "background", "data's prior", "first loss",
               "background", "balanced by"]  # fmt: skip


def loss_cells(numbers: dict[str, Any]) -> list[list[str]]:
    """Header and a row for each loss that the config allows."""
    rows = [row for row in numbers["losses"] if row["given"]]
    return [LOSS_HEADER, *([row["loss"], *start(row["given"]), *start(row["data"]), balanced(row)]
                           for row in rows)]  # fmt: skip


def start(values: dict[str, float] | None) -> list[str]:
    """Prior, loss and share of background."""
    if values is None:
        return ["-"] * 3
    return [
        f"{values['prior']:.2g}",
        f"{values['class_loss']:.4g}",
        f"{values['negative_share']:.1%}",
    ]


def balanced(row: dict[str, Any]) -> str:
    """The override with which objects have half of the gradient."""
    return "-" if row["balanced"] is None else f"loss.{row['option']}={row['balanced']!r}"


def loss_table(numbers: dict[str, Any]) -> list[str]:
    """Every loss, and why one is missing."""
    title = "First step of every loss; background: its share of the class gradient"
    refused = [f"  {row['loss']}: {row['reason']}" for row in numbers["losses"] if not row["given"]]
    return ["", title, *aligned(loss_cells(numbers)), *refused]


def class_advice(numbers: dict[str, Any]) -> list[str]:
    """What would help each class that needs something, with the overrides to paste."""
    lines = ["", "Advice by class"]
    for row in numbers["per_class"]:
        for item in row["advice"]:
            lines.append(f"{row['class']}, {item['topic']}: {' '.join(item['overrides']) or '-'}")
            lines.append(f"    {item['reason']}")
    return lines if len(lines) > 2 else [*lines, "every class has enough objects and anchors"]


def advice(numbers: dict[str, Any]) -> list[str]:
    """What to change and why, and all of it as one line to paste."""
    lines = ["", "Advice"]
    for item in numbers["advice"]:
        what = " ".join(item["overrides"]) or "keep"
        lines += [f"{item['topic']}: {what}", f"    {item['reason']}"]
    if not numbers["overrides"]:
        return [*lines, "nothing to change"]
    now, then = numbers["now"], numbers["advised"]
    return [
        *lines,
        f"all of it: {numbers['paste']}",
        f"    then {then['unreached']} objects unreached (now {now['unreached']}), "
        f"{then['forced']} by force (now {now['forced']}), "
        f"{per_one(then['background_per_positive'])} background to foreground",
    ]

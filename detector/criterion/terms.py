"""What a loss has to return: looked at in each step, a stranger's loss may return anything."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from detector.errors import ConfigError
from detector.structures import Matches

WANTED = 'a dict of named terms not summed over images is needed, such as {"class": (N, A, K)}'


def require_class_terms(name: str, terms: Any, matches: Matches, num_classes: int) -> None:
    """Raises ConfigError unless they are named terms (N, A, K), (N, A) or (N,) of the class loss
    of that name."""
    n, a = matches.labels.shape
    shapes = {(n, a, num_classes): "(N, A, K)", (n, a): "(N, A)", (n,): "(N,)"}
    _require(f"loss={name}", terms, shapes)
    for key in terms:
        if key.startswith("box"):
            raise ConfigError(f"loss={name}: the term {key!r} has the name of a box loss's")


def require_box_terms(name: str, terms: Any, matches: Matches) -> None:
    """Raises ConfigError unless they are terms (N, A), whose names begin with "box"."""
    _require(f"box_loss={name}", terms, {tuple(matches.labels.shape): "(N, A)"})
    for key in terms:
        if not key.startswith("box"):
            raise ConfigError(f'box_loss={name}: the term {key!r} given, "box..." is its name')


def _require(who: str, terms: Any, shapes: dict[tuple[int, ...], str]) -> None:
    if not isinstance(terms, dict) or not terms:
        raise ConfigError(f"{who}: forward gave {_described(terms)}, {WANTED}")
    for key, term in terms.items():
        if not isinstance(key, str):
            raise ConfigError(f"{who}: a term is called {key!r}, a text is needed")
        if not isinstance(term, Tensor) or tuple(term.shape) not in shapes:
            allowed = " or ".join(f"{words} = {shape}" for shape, words in shapes.items())
            raise ConfigError(
                f"{who}: the term {key!r} is {_described(term)}, {allowed} is needed; summing and "
                "dividing are done for it"
            )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}"[:60]

"""Every message to a user, read out of the sources: it names something, and a way on or the fault.

Messages that are put together elsewhere (`ConfigError(line)`) are not read here.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.commands import ROOT

ERRORS = ("ConfigError", "DataError", "StorageError", "LoaderError", "OutOfMemory", "Damaged")

WAY = re.compile(
    r"allowed|\bneed|ha(s|ve) to|=|did you mean|at least|at most|between|\bsee\b|goes? with|; |"
    r"\btakes?\b|\bgive\b|\bonly\b|\balone\b|\bsuch as\b|smaller|larger|instead|[Nn]one of|"
    r"(not|neither|none) .*\b(one of|a|an|or)\b|"
    r"is least|\bcomputes (on|in)\b|\bhas its own\b|\bhave none\b|what this version reads|"
    r"above 0|are the labels of|is refused|refused,|more than|fixed strides|have no root"
)
"""What is allowed, needed, or another key or command."""

FAULT = re.compile(
    r"not a (file|folder|list|number)|cannot be (read|written|had|opened|started|used)|damaged|"
    r"missing|is not (UTF-8|XML|JSON|yaml|valid)|does not (exist|fit|find)|not exist|twice|"
    r"exists already|already|leads out|no (images|objects|number|pattern|state dict|tensor|group)|"
    r"holds no|has no|is empty|no image|of one length|kept as it is|in use by|not those|not in |"
    r"share the labels|not the data|but annotated|became a link|other data|is no |no file_name|"
    r"stands inside|called|whole study|by itself|from 0 on|MB are free|no run ended|"
    r"does not compute|could not be written|not four numbers|as another class is|given for|"
    r"is given|machine has|not made of|has an AP of|loses more|not what it says|depend on more|"
    r"again and again|makes no maps|do not fit"
)
"""Where the file or value that is named is itself what has to be mended: no key leads around it."""


MOST_OF_A_FRAME = 3
"""Words in a message that puts a reason from elsewhere behind a place: `FILE: REASON, byte 3`."""


class Message(NamedTuple):
    place: str
    text: str


def text_of(node: ast.expr) -> str | None:
    """A message with {expressions} in their places; None where it is made elsewhere."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
            for part in node.values
            if isinstance(part, ast.Constant | ast.FormattedValue)
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [text_of(side) for side in (node.left, node.right)]
        if parts != [None, None]:
            return "".join(part or "{}" for part in parts)
    return None


def messages_of(source: str, place: str) -> list[Message]:
    """Those that errors are raised with, and the second argument of `require`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        arguments = node.args[:1] if name in ERRORS else node.args[1:2] * (name == "require")
        for argument in arguments:
            text = text_of(argument)
            # What only frames the words of another place says nothing of its own.
            own = re.sub(r"\{[^{}]*(\{[^{}]*\}[^{}]*)*\}", "", text or "")
            if text is not None and len(re.findall(r"[a-z]{2,}", own)) > MOST_OF_A_FRAME:
                found.append(Message(f"{place}:{node.lineno}", text))
    return found


def all_messages() -> list[Message]:
    return [
        message
        for path in sorted((ROOT / "detector").rglob("*.py"))
        for message in messages_of(path.read_text(), str(path.relative_to(ROOT)))
    ]


def names_nothing(message: Message) -> bool:
    """Whether neither a value nor a key, before a colon, is in it."""
    return "{" not in message.text and not re.match(r"[\w.]+:|.*(--\w|pip install)", message.text)


def leads_nowhere(message: Message) -> bool:
    return not WAY.search(message.text) and not FAULT.search(message.text)


def test_every_message_names_a_value_or_a_key() -> None:
    assert [message for message in all_messages() if names_nothing(message)] == []


def test_every_message_has_a_way_on_or_the_fault_to_mend() -> None:
    assert [message for message in all_messages() if leads_nowhere(message)] == []


def test_they_are_found() -> None:
    """So that the two tests above cannot pass for want of messages."""
    assert len(all_messages()) > 350
    assert any(
        Path(message.place.partition(":")[0]).name == "train.py" for message in all_messages()
    )


@pytest.mark.parametrize(
    "text", ["steps: 3 given, and that was that", "{path}: what a pity it is now"]
)
def test_a_message_that_leads_nowhere_is_found(text: str) -> None:
    (message,) = messages_of(f'raise ConfigError(f"{text}")', "a.py")
    assert leads_nowhere(message)


def test_a_message_that_names_nothing_is_found() -> None:
    (message,) = messages_of('require(False, "something is wrong; try another")', "a.py")
    assert names_nothing(message)

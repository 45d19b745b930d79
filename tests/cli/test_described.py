"""What --help and `detector help KEY` say, against the composed configs themselves."""

from __future__ import annotations

import re

import pytest
from omegaconf import DictConfig, OmegaConf

from detector.cli import described
from detector.cli.hydra_app import composed, keys_of
from detector.cli.main import COMMANDS
from detector.errors import ConfigError
from tests.cli.test_main import detector  # noqa: F401  the fixture
from tests.commands import ROOT, Command

WITH_KEYS = sorted(COMMANDS.keys() - {"configs", "check_plugin"})

SELF_EXPLAINED = {"arch", "name"}
"""Keys that say which file was chosen, whose comment is that of the group."""


def leaves_of(node: DictConfig) -> set[str]:
    """The keys that hold a value, the names of chosen parts left out."""
    plain = OmegaConf.to_container(node, resolve=False)
    assert isinstance(plain, dict)
    keys = keys_of(node)
    leaves = {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}
    return leaves - {f"{group}.name" for group in plain}


@pytest.mark.parametrize("tool", WITH_KEYS)
def test_every_key_that_a_command_takes_is_there_with_what_it_means(
    command: Command, tool: str
) -> None:
    outcome = command(tool, "--help")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= described.COLUMNS
    shown = [found[1] for line in lines if (found := re.match(r"  ([\w.]+)=", line))]
    empty = {"ramps", "slurm"}  # an empty mapping is a value and holds no key
    assert set(shown) | empty >= leaves_of(composed(tool, []))
    bare = [
        key
        for key in shown
        if re.search(rf"^  {re.escape(key)}=\S*$\n(?! {{20}})", outcome.out, re.MULTILINE)
    ]
    assert {key.rpartition(".")[2] for key in bare} <= SELF_EXPLAINED


def test_own_keys_come_before_those_of_a_training(command: Command) -> None:
    lines = command("compare", "--help").out.splitlines()
    places = [
        next(i for i, line in enumerate(lines) if line.startswith(start))
        for start in ("  losses=", "  metric=", "Keys of a training", "  steps=", "loss=focal")
    ]
    assert places == sorted(places)


def test_a_command_without_a_training_has_none_of_its_keys(command: Command) -> None:
    out = command("predict", "--help").out
    assert "loss" not in re.findall(r"^  (\w+)=", out, re.MULTILINE)
    assert "experiment" not in out


def test_keys_are_those_of_what_is_chosen_by_a_preset_too(command: Command) -> None:
    out = command("train", "--help", "loss=ssd", "steps=7").out
    assert "  loss.gamma=" not in out
    assert "  steps=7  " in out
    assert "optim=sgd" in command("train", "--help", "experiment=coco_r50_1x").out


def test_a_key_is_explained_as_each_part_means_it(detector: Command) -> None:  # noqa: F811
    outcome = detector("help", "loss.gamma")
    assert (outcome.code, outcome.err) == (0, "")
    text = (ROOT / "configs" / "loss" / "focal.yaml").read_text()
    note = re.search(r"^gamma:.*# (.*)$", text, re.MULTILINE)
    assert note is not None
    assert re.search(rf"    {re.escape(note[1])}.*\n    in loss=focal", outcome.out)
    assert set(outcome.out.splitlines()) <= set(detector("help", "gamma").out.splitlines())


def test_the_range_of_an_option_is_said_with_what_it_means(detector: Command) -> None:  # noqa: F811
    words = r"model\.coder\.bins=17 +of a distribution \(at least 2\)"
    assert re.search(words, detector("train", "--help").out)
    assert "(above 0)" in detector("help", "box_loss.constant").out
    assert "(at least 0)" in detector("help", "draws").out


def test_a_group_is_explained_by_its_files(detector: Command) -> None:  # noqa: F811
    out = detector("help", "optim").out
    assert "optim=adamw\n    Loshchilov and Hutter 2019.\n" in out


def test_a_command_is_explained_as_its_help_does(detector: Command) -> None:  # noqa: F811
    assert detector("help", "predict").out == detector("predict", "--help").out


def test_a_key_that_is_none_is_answered_with_the_nearest(detector: Command) -> None:  # noqa: F811
    outcome = detector("help", "loss.gama")
    assert outcome.code == 2
    assert outcome.message.startswith(
        "loss.gama: no key of any command (did you mean 'loss.gamma'?"
    )
    with pytest.raises(ConfigError, match=r"did you mean 'optim.lr'"):
        described.about("learning_rate")


def test_a_comment_goes_on_over_lines_and_below_lists() -> None:
    page = described.parse(
        "# The head\n# of it.\ndefaults:\n  - _self_\n  - loss: focal   # chosen\n"
        "a: 1   # one\n       # more\nb:     # of b\n  - x\n  - y\nc:\n  d: [1, 2]   # deep\n"
    )
    assert page.head == "The head of it."
    assert [(e.key, e.value, e.note, e.is_group) for e in page.entries] == [
        ("loss", "focal", "chosen", True),
        ("a", "1", "one more", False),
        ("b", "", "of b", False),
        ("c", "", "", False),
        ("c.d", "[1, 2]", "deep", False),
    ]

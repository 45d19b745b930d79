"""One file and one yaml, nothing else is edited: done in a copy of this tree, whose tests pass.

The loss is the example of CONTRIBUTING.md under the names of the steps there, so what is promised
is what is tried. A box loss and a matcher are added beside it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.test_plugins import block

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
STEPS = TEXT.partition("## How to add a class loss")[2].partition("### ")[0]

BOX_LOSS = '''
from detector.box_losses.base import BoxLoss, encoded_error, on_positives
from detector.config.registry import BOX_LOSSES


@BOX_LOSSES.register("my_box_loss")
class MyBoxLoss(BoxLoss):
    """Squares of the deltas' errors, which are counted from the anchor."""

    def forward(self, predictions, matches):
        squares = encoded_error(predictions, matches).square().sum(-1)
        return {"box": on_positives(squares, matches)}
'''

MATCHER = '''
from detector.matchers.base import Matcher, Thresholds, match_images
from detector.config.registry import MATCHERS


@MATCHERS.register("my_matcher")
class MyMatcher(Matcher):
    """Without any option."""

    def __call__(self, anchors, targets, predictions=None):
        return match_images(anchors, targets, Thresholds(0.6, 0.3, "object", 0.5))
'''

CONTRACTS = {"losses": "my_loss", "box_losses": "my_box_loss", "matchers": "my_matcher"}
"""Folders of the contract tests, and the part that each has to take up."""

OF_THE_SHIPPED = {
    "test_prediction_and_object_are_treated_alike",
    "test_a_crowd_coverage_of_0_is_refused",
    "test_no_object_goes_without_an_anchor_where_that_is_asked_for",
}
"""Tests of a contract that say by name whom they are about."""

SELECTED = (
    "my_ or every_registered or test_docs.py or TestTrain or test_has_a_class "
    "or (test_tools.py and answered_in_one_line and loss)"
)
"""Every test of the new parts, in whichever file; and those that look at all parts at once: what
the documents and the configs hold, what is drawn and foretold of every loss, the messages that name
all of them. The rest is left out: it is about other parts, and takes many minutes.
"""

LEFT_OUT = ("test_promise.py", "test_gpu.py")
"""Itself; and what skips without a GPU."""


def added() -> dict[str, str]:
    """Text by path of the files that are added: for a class loss those of the two steps."""
    files = re.findall(r"^\d\. `([\w/.]+)`", STEPS, re.M)
    (name,) = re.findall(r'`@LOSSES.register\("(\w+)"\)`', STEPS)
    assert [Path(file).stem for file in files] == [name, name], "one file and one yaml"
    code, yaml = block("python"), block("yaml")
    assert code.count('"mine"') == yaml.count("name: mine") == 1
    texts = [code.replace('"mine"', f'"{name}"'), yaml.replace("name: mine", f"name: {name}")]
    return {
        **dict(zip(files, texts, strict=True)),
        "detector/box_losses/my_box_loss.py": BOX_LOSS,
        "configs/box_loss/my_box_loss.yaml": "name: my_box_loss\nweight: 1.0\n",
        "detector/matchers/my_matcher.py": MATCHER,
        "configs/matcher/my_matcher.yaml": "name: my_matcher\n",
    }


def copy_tree(to: Path) -> None:
    """What git has, or would add, as it is on the disk."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a checkout of git")
    for name in filter(None, done.stdout.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The ids of the tests that passed in the copy, where none may fail."""
    tree = tmp_path_factory.mktemp("promise") / "copy"
    copy_tree(tree)
    for path, text in added().items():
        assert not (tree / path).exists()
        (tree / path).write_text(text)
    ignored = [f"--ignore=tests/{name}" for name in LEFT_OUT]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-r", "fEp", *ignored]
    done = subprocess.run(
        [*command, "tests", "-k", SELECTED],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return re.findall(r"^PASSED (tests/.*)$", done.stdout, re.M)


@pytest.mark.parametrize("folder", CONTRACTS)
def test_a_part_of_a_file_and_a_yaml_is_taken_up_by_its_whole_contract(
    passed: list[str], folder: str
) -> None:
    contract = f"tests/{folder}/test_contract.py"
    tests = set(re.findall(r"^def (test_\w+)", (ROOT / contract).read_text(), re.M))
    assert len(tests) > 5
    own = {
        test.removeprefix(f"{contract}::").partition("[")[0]
        for test in passed
        if test.startswith(contract) and CONTRACTS[folder] in test
    }
    assert own == tests - OF_THE_SHIPPED


def test_the_configs_and_the_documents_were_looked_at_too(passed: list[str]) -> None:
    owed = "tests/test_docs.py::test_a_class_loss_has_formula_plot_use_and_faults"
    assert f"{owed}[focal]" in passed
    assert f"{owed}[my_loss]" not in passed
    for name in CONTRACTS.values():
        assert sum(t.startswith("tests/test_configs.py") and name in t for t in passed) >= 4

"""What the files around the code promise: the lock, the ranges, the limits of size."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.txt"
SHIPPED = sorted(file for folder in ("detector", "tools") for file in (ROOT / folder).rglob("*.py"))
TOOLS = [file for file in SHIPPED if '__name__ == "__main__"' in file.read_text()]
"""What a user runs: files of `tools`, and the package as `python -m detector.cli`."""
MOST_LINES_OF_A_TOOL = 9
"""A docstring, two imports, a call: what a tool does is in `detector/cli`."""


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


def pinned() -> dict[str, str]:
    """Name -> version(s) of every package in the lock."""
    lines = LOCK.read_text().splitlines()
    entries = [line for line in lines if not line.startswith(" ")]
    matches = [re.match(r"([a-z0-9-]+)==(\S+)", entry) for entry in entries]
    assert all(matches)
    return {match[1]: match[2] for match in matches if match}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


class TestLock:
    def test_records_no_address_and_no_path(self) -> None:
        text = LOCK.read_text()
        for trace in ("://", "/", "file:", " @ ", "index-url", "find-links", "#"):
            assert trace not in text, trace

    def test_has_a_hash_for_every_package(self) -> None:
        entries = re.split(r"\n(?=\S)", LOCK.read_text().strip())
        for entry in entries:
            assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry.splitlines()[0]

    def test_names_every_dependency_of_the_project(self) -> None:
        names = {re.split(r"[<>=!~ ;\[]", line)[0] for line in project()["dependencies"]}
        assert names <= pinned().keys()

    def test_does_not_hold_the_torch_that_exists_as_a_local_build_without_its_torchvision(
        self,
    ) -> None:
        assert not pinned()["torch"].startswith("2.13")
        assert "+" not in pinned()["torch"]


def test_actions_of_others_are_those_of_a_commit() -> None:
    """A tag can be moved by whoever owns it."""
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        uses = re.findall(r"uses: (.*)", file.read_text())
        assert uses
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", use) for use in uses)


class TestRanges:
    def test_torch_and_torchvision_have_a_floor_and_no_cap(self) -> None:
        torches = [line for line in project()["dependencies"] if line.startswith("torch")]
        assert len(torches) == 2
        for line in torches:
            assert re.fullmatch(r"torch(vision)?>=[\d.]+", line), line

    def test_python_is_capped_below_the_one_that_hydra_cannot_run_on(self) -> None:
        assert project()["requires-python"] == ">=3.11,<3.14"


class TestLimits:
    def test_what_a_user_runs_is_in_one_folder(self) -> None:
        package = ROOT / "detector" / "cli" / "__main__.py"
        assert {file.parent for file in TOOLS if file != package} == {ROOT / "tools"}

    @pytest.mark.parametrize("file", TOOLS, ids=relative)
    def test_a_tool_only_calls(self, file: Path) -> None:
        assert len(file.read_text().splitlines()) <= MOST_LINES_OF_A_TOOL

    @pytest.mark.parametrize("file", SHIPPED, ids=relative)
    def test_nothing_shipped_runs_code_from_a_file(self, file: Path) -> None:
        """A checkpoint and a config are data; see `detector.config.registry`."""
        assert unsafe_calls(file.read_text()) == []

    def test_what_listens_listens_on_this_machine_alone(self) -> None:
        """TensorBoard and the service know no password."""
        makefile = (ROOT / "Makefile").read_text()
        assert re.findall(r"tensorboard\.main(.*?)--logdir", makefile) == [" --host 127.0.0.1 "]
        served = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text())
        assert served["host"] == "127.0.0.1"
        pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("Dockerfile*")]
        assert not [page for page in pages if "bind_all" in page.read_text()]


UNSAFE = (
    r"weights_only\s*=\s*False",
    r"\bpickle\.loads?\b",
    r"\byaml\.load\(",
    r"(?<![\w.])eval\(",
)
"""`model.eval()` is another thing: only the builtin is meant, which no dot precedes."""


def unsafe_calls(source: str) -> list[str]:
    return [pattern for pattern in UNSAFE if re.search(pattern, source)]


@pytest.mark.parametrize(
    "line",
    ["torch.load(f, weights_only=False)", "pickle.load(f)", "yaml.load(text)", "x = eval(text)"],
)
def test_an_unsafe_call_is_found(line: str) -> None:
    assert len(unsafe_calls(line)) == 1


@pytest.mark.parametrize(
    "line", ["torch.load(f, weights_only=True)", "model.eval()", "yaml.safe_load(f)"]
)
def test_a_safe_call_is_not_taken_for_an_unsafe_one(line: str) -> None:
    assert unsafe_calls(line) == []


def test_the_licence_is_the_standard_text_of_apache_2() -> None:
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert project()["license"] == "Apache-2.0"

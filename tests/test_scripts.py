"""The shell scripts, run with stand-ins for the commands that would download something."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.mark.parametrize("file", sorted(SCRIPTS.glob("*.sh")), ids=lambda file: file.name)
def test_a_script_can_be_run_and_parsed(file: Path) -> None:
    assert os.access(file, os.X_OK)
    subprocess.run(["bash", "-n", file], check=True)


class Commands:
    """A folder of stand-ins, first on the path of what is run, and a log of their calls."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.log = folder / "bin", folder / "log"
        self.bin.mkdir()
        self.log.touch()

    def add(self, name: str, body: str) -> None:
        """body: lines of bash; `log WORDS` adds a line to the log."""
        lines = f'#!/bin/bash\nlog() {{ echo "$@" >> {self.log}; }}\n{body}\n'
        (self.bin / name).write_text(lines)
        (self.bin / name).chmod(0o755)

    def run(
        self, script: Path, *arguments: str | Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", script, *arguments],
            env={"PATH": f"{self.bin}:/usr/bin:/bin", **environment},
            capture_output=True,
            text=True,
        )

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


class TestInstall:
    """In a copy, so that the environment that runs the tests is left alone."""

    UNFIT = "exit 1"
    FIT = """
case "$*" in
    *version_info*) exit 0 ;;
    *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *--version*) exit 0 ;;
esac
log "$(basename "$0") $*"
"""

    @pytest.fixture
    def script(self, tmp_path: Path) -> Path:
        (tmp_path / "copy" / "scripts").mkdir(parents=True)
        return Path(shutil.copy(SCRIPTS / "install.sh", tmp_path / "copy" / "scripts"))

    @pytest.fixture(autouse=True)
    def nothing_suitable(self, commands: Commands) -> None:
        for name in ("python3", "python3.11", "python3.12", "python3.13", "uv"):
            commands.add(name, self.UNFIT)

    def test_takes_the_first_python_that_runs_and_fits(
        self, commands: Commands, script: Path
    ) -> None:
        commands.add("python3.12", self.FIT)
        commands.add("python3", self.FIT)
        assert commands.run(script, "--group", "dev").returncode == 0
        assert commands.calls() == [
            "python3.12 -m venv --clear .venv",
            "python -m pip install --quiet --upgrade pip>=25.1",
            "python -m pip install --editable . --group dev",
        ]

    def test_takes_the_python_that_is_named(self, commands: Commands, script: Path) -> None:
        commands.add("python3.12", self.FIT)
        commands.add("mine", self.FIT)
        assert commands.run(script, PYTHON="mine").returncode == 0
        assert commands.calls()[0].startswith("mine -m venv")

    @pytest.mark.parametrize("named", [{}, {"PYTHON": "python3.11"}])
    def test_says_in_one_line_that_no_python_fits(
        self, commands: Commands, script: Path, named: dict[str, str]
    ) -> None:
        result = commands.run(script, **named)
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("Python 3.11 to 3.13 with its venv module is needed")
        assert not (script.parent.parent / ".venv").exists()

    def test_an_environment_that_is_there_is_kept(self, commands: Commands, script: Path) -> None:
        commands.add("python3", self.FIT)
        commands.run(script)
        commands.run(script)
        assert sum("-m venv" in call for call in commands.calls()) == 1

    def test_uv_is_used_where_it_knows_groups(self, commands: Commands, script: Path) -> None:
        commands.add("uv", '[[ "$*" == *--help* ]] && echo " --group <GROUP>" || log "uv $*"')
        assert commands.run(script, "--group", "dev").returncode == 0
        assert commands.calls() == [
            "uv venv --allow-existing --python >=3.11,<3.14 .venv",
            "uv pip install --python .venv/bin/python --editable . --group dev",
        ]

    def test_a_uv_that_does_not_know_groups_is_passed_over(
        self, commands: Commands, script: Path
    ) -> None:
        commands.add("uv", '[[ "$*" == *--help* ]] && echo " --extra <EXTRA>" || log "uv $*"')
        commands.add("python3", self.FIT)
        assert commands.run(script, "--group", "dev").returncode == 0
        assert not any(call.startswith("uv") for call in commands.calls())

    def test_the_check_of_a_python_accepts_the_one_that_runs_the_tests(
        self, commands: Commands, script: Path
    ) -> None:
        """The stand-ins never run the check itself, so here it is run by a real Python."""
        real = f'[[ "$*" == *version_info* ]] && exec {sys.executable} "$@"\n{self.FIT}'
        commands.add("python3", real)
        assert commands.run(script).returncode == 0


class TestDownloadOfCoco:
    """With a small archive for `curl` to copy, and its size and sum in a copy of the script."""

    ARCHIVES = ("annotations_trainval2017.zip", "val2017.zip", "train2017.zip")
    SCRIPT = SCRIPTS / "download_coco.sh"

    @pytest.fixture(autouse=True)
    def curl(self, commands: Commands, tmp_path: Path) -> None:
        copy = f'while [ "$1" != --output ]; do shift; done; cp {tmp_path}/small.zip "$2"'
        commands.add("curl", f'log "curl ${{@: -1}}"\n{copy}')
        with zipfile.ZipFile(tmp_path / "small.zip", "w") as file:
            file.writestr("val2017/content.txt", "x")

    def of_small_archives(self, tmp_path: Path) -> Path:
        """The script, for archives that all are `small.zip`."""
        content = (tmp_path / "small.zip").read_bytes()
        expected = f"{len(content)} \\\n    {hashlib.sha256(content).hexdigest()}"
        text, replaced = re.subn(
            r"\d+ \\\n    [0-9a-f]{64}", lambda _: expected, self.SCRIPT.read_text()
        )
        assert replaced == 3
        script = tmp_path / "download.sh"
        script.write_text(text)
        return script

    @pytest.mark.parametrize("what", ["size", "sum"])
    def test_unpacks_nothing_whose_size_or_checksum_is_wrong(
        self, commands: Commands, tmp_path: Path, what: str
    ) -> None:
        script = self.of_small_archives(tmp_path)
        content = (tmp_path / "small.zip").read_bytes()
        wrong = content + b"x" if what == "size" else content[:-1] + b"x"
        (tmp_path / "small.zip").write_bytes(wrong)
        result = commands.run(script, tmp_path / "coco")
        assert result.returncode == 3
        assert "annotations_trainval2017.zip: it has not" in result.stderr
        assert [call.split()[0] for call in commands.calls()] == ["curl"]
        assert not (tmp_path / "coco" / "val2017").exists()

    def test_unpacks_what_is_right_and_does_nothing_the_second_time(
        self, commands: Commands, tmp_path: Path
    ) -> None:
        root, script = tmp_path / "coco", self.of_small_archives(tmp_path)
        result = commands.run(script, root)
        assert result.returncode == 0, result.stderr
        assert (root / "val2017" / "content.txt").read_text() == "x"
        assert not list(root.glob("*.zip"))
        assert commands.run(script, root).returncode == 0
        assert len(commands.calls()) == 3

    def test_an_archive_that_is_right_already_is_not_fetched(
        self, commands: Commands, tmp_path: Path
    ) -> None:
        root, script = tmp_path / "coco", self.of_small_archives(tmp_path)
        root.mkdir()
        shutil.copy(tmp_path / "small.zip", root / self.ARCHIVES[1])
        commands.run(script, root)
        fetched = [Path(call).name for call in commands.calls()]
        assert fetched == [self.ARCHIVES[0], self.ARCHIVES[2]]

    @pytest.mark.parametrize("kind", ["parent", "absolute", "link", "many", "large"])
    def test_an_archive_that_leads_out_or_is_too_much_is_not_unpacked(
        self, commands: Commands, tmp_path: Path, kind: str
    ) -> None:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        entries: dict[str, list[tuple[str | zipfile.ZipInfo, str]]] = {
            "parent": [("../out.txt", "x")],
            "absolute": [("/out.txt", "x")],
            "link": [(link, "/etc")],
            "many": [(f"{i}.txt", "") for i in range(21)],
            "large": [("a.txt", "x")],
        }
        with zipfile.ZipFile(tmp_path / "small.zip", "w") as file:
            for name, text in entries[kind]:
                file.writestr(name, text)
        script = self.of_small_archives(tmp_path)
        if kind == "large":
            script.write_text(script.read_text().replace(" 2000000000 ", " 0 "))
        result = commands.run(script, tmp_path / "coco")
        assert result.returncode == 3
        said = "are unpacked" if kind in ("many", "large") else "leads out of the folder"
        assert said in result.stderr
        assert [path.name for path in (tmp_path / "coco").iterdir()] == [self.ARCHIVES[0]]

    def test_asks_for_archives_by_https_only(self, commands: Commands, tmp_path: Path) -> None:
        commands.run(self.of_small_archives(tmp_path), tmp_path / "coco")
        fetched = commands.calls()
        assert len(fetched) == 3
        assert all(call.startswith("curl https://") for call in fetched)

    def test_without_a_folder_says_how_it_is_used(self, commands: Commands) -> None:
        result = commands.run(self.SCRIPT)
        assert result.returncode == 2
        assert result.stderr.startswith("usage: ")


def test_launch_gives_the_agent_its_variable_and_passes_everything_on(commands: Commands) -> None:
    commands.add("torchrun", 'log "$TORCH_DISABLE_SHARE_RDZV_TCP_STORE $*"')
    commands.run(SCRIPTS / "launch.sh", "--nproc-per-node", "2", "tools/train.py", "loss=focal")
    assert commands.calls() == ["1 --nproc-per-node 2 tools/train.py loss=focal"]


class TestEqualRuns:
    SCRIPT = SCRIPTS / "equal_runs.sh"

    @pytest.mark.parametrize("arguments", [[], ["no-such-commit"]])
    def test_without_a_commit_that_git_knows_says_how_it_is_used(
        self, commands: Commands, arguments: list[str]
    ) -> None:
        commands.add("git", "exit 1")
        result = commands.run(self.SCRIPT, *arguments)
        assert result.returncode == 2
        assert result.stderr.startswith("usage: ")
        assert len(result.stderr.splitlines()) == 1

    def test_removes_its_tree_of_the_old_commit_also_where_a_run_fails(
        self, commands: Commands, tmp_path: Path
    ) -> None:
        """The old tree stays empty here, so what would run in it is the code of another one."""
        commands.add(
            "git", 'log "$*"; [ "$1" != rev-parse ] || echo abc; [ "$2" != add ] || mkdir $5'
        )
        result = commands.run(self.SCRIPT, "v1", TMPDIR=str(tmp_path))
        assert result.returncode == 1
        assert result.stderr.endswith("tree: its code is not what runs\n")
        _, added, removed = commands.calls()
        tree = added.split()[-2]
        assert removed == f"worktree remove --force {tree}"
        assert not Path(tree).parent.exists()

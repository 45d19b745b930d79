"""What is deleted in a folder is what a run wrote there, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detector.config.compose import to_yaml
from detector.runs import own_files
from detector.runs.checkpoint import save
from detector.runs.run_folder import RunFolder
from tests.training.tiny import tiny, trained

THEIRS = (
    *("notes.txt", "figures/mine.png", "figures/paper/reliability.png", "worst/tests.csv"),
    *("crash/report.txt", "tensorboard/other/events.out.tfevents.1", "checkpoints/mine.pt"),
    *("checkpoints/evaluation/metrics.json", "probe/images/readme.txt", "model/config.yaml"),
)
"""Files that lie in and around the folders of a run."""

OURS = (
    *("config.yaml", "log.jsonl", "status.json", "initial_loss.json", "evaluations.jsonl"),
    *("metrics.json", "detections.json", ".detector-run", "status.json.damaged", "log.jsonl.tmp"),
    *("checkpoints/last.pt", "checkpoints/best.pt", "checkpoints/step_000000010.pt"),
    *("checkpoints/last.damaged", "checkpoints/last.pt.tmp", "crash/batch.json"),
    *("crash/checkpoint.pt", "figures/reliability.png", "figures/precision_recall_2.png"),
    *("worst/missed_01_image_7.png", "tensorboard/events.out.tfevents.1.host.2.0"),
    *("probe/steps.jsonl", "probe/images.json", "probe/final.json", "probe/images/7.png"),
)


def fill(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_what_a_run_wrote_goes_and_everything_else_stays_and_is_named(tmp_path: Path) -> None:
    fill(tmp_path, OURS + THEIRS)
    left = own_files.clear(RunFolder(tmp_path))
    assert files(tmp_path) == sorted(THEIRS) == left
    line = own_files.in_words(left)
    assert line.startswith("overwrite: no run wrote checkpoints/evaluation/metrics.json, ")
    assert line.endswith(" and 2 more, which stays as it is")


def test_nothing_is_left_where_there_is_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path, OURS)
    assert own_files.clear(RunFolder(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_followed_but_that_of_the_checkpoints_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name, file in [("figures", "reliability.png"), ("checkpoints", "last.pt")]:
        fill(tmp_path / "elsewhere" / name, (file, "mine.txt"))
        (run / name).symlink_to(tmp_path / "elsewhere" / name)
    own_files.clear(RunFolder(run))
    assert files(tmp_path / "elsewhere") == [
        *("checkpoints/mine.txt", "figures/mine.txt", "figures/reliability.png"),
    ]
    assert (run / "figures").is_symlink()
    assert (run / "checkpoints").is_symlink()


def test_a_folder_of_that_name_is_no_file_of_a_run(tmp_path: Path) -> None:
    fill(tmp_path, ("metrics.json/mine.txt",))
    assert own_files.clear(RunFolder(tmp_path)) == ["metrics.json/mine.txt"]


def older(path: Path) -> RunFolder:
    """The files of a run by which it was known before there was a mark."""
    folder = RunFolder(path)
    folder.config.write_text(to_yaml(tiny(path)))
    folder.write_status("done", step=1, exit_code=0)
    return folder


def test_a_run_of_an_older_version_is_known_by_its_files(tmp_path: Path) -> None:
    folder = older(tmp_path)
    assert own_files.is_of_a_run(folder)
    folder.status.write_text("{")
    assert not own_files.is_of_a_run(folder)
    folder.last.parent.mkdir()
    save(folder.last, {"step": 1})
    assert own_files.is_of_a_run(folder)
    folder.config.unlink()
    assert own_files.is_of_a_run(folder)


@pytest.mark.parametrize(
    "config", ["", "model: resnet\n", "- a\n", "{", "loss: focal\ndata: coco\n", "a: ${b}\n"]
)
def test_a_config_of_something_else_tells_no_run(tmp_path: Path, config: str) -> None:
    folder = older(tmp_path)
    folder.config.write_text(config)
    assert not own_files.is_of_a_run(folder)
    own_files.mark(folder)
    assert own_files.is_of_a_run(folder)


@pytest.mark.parametrize("word", ["overwrite=true", "resume=auto", "seed=1"])
def test_the_command_leaves_the_folder_of_another_project_as_it_is(
    tmp_path: Path, word: str
) -> None:
    project = tmp_path / "project"
    fill(project, (*THEIRS, "config.yaml", "figures/reliability.png", "checkpoints/best.pt"))
    before = files(project)
    outcome = trained(project, word)
    assert (outcome.code, outcome.message) == (
        2,
        f"output_dir: {project} holds config.yaml, but nothing that tells a run of this project; "
        "another folder is needed",
    )
    assert files(project) == before


def test_the_command_replaces_a_run_and_names_what_it_leaves(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert trained(run, "steps=1").code == 0
    fill(run, THEIRS[:2])
    outcome = trained(run, "overwrite=true")
    assert outcome.code == 0, outcome.err
    line = "overwrite: no run wrote figures/mine.png, notes.txt, which stays as it is\n"
    assert line in outcome.out
    assert {"figures/mine.png", "notes.txt", "metrics.json"} <= set(files(run))
    assert json.loads((run / "status.json").read_text())["step"] == 2

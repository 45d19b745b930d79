"""What a run goes on from, and what it refuses to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import detector
from detector.config import from_plain
from detector.errors import ConfigError
from detector.runs import checkpoint, own_files, status
from detector.runs.checkpoint import load, save
from detector.runs.resume import Opened, differences, open_folder
from detector.runs.run_folder import RunFolder
from detector.runtime.distributed import World
from tests.training.tiny import tiny


def test_differences_name_the_key_and_both_values(tmp_path: Path) -> None:
    plain = tiny(tmp_path)
    changed = {**plain, "optim": {"name": "adamw", "lr": 2e-3}, "log_every": 5}
    assert differences(plain, changed) == ["optim.lr: 0.001 -> 0.002"]


def make_run(path: Path) -> Path:
    """What a run of the tiny config leaves, as far as it matters here; its checkpoint."""
    folder = RunFolder(path)
    folder.last.parent.mkdir(parents=True)
    folder.config.write_text("mine")
    own_files.mark(folder)
    save(folder.last, {"config": tiny(path), "step": 3})
    return folder.last


def look(**changes: Any) -> tuple[Opened, dict[str, Any] | None]:
    """What a run with these keys would begin with."""
    plain = tiny(Path("unused")) | {"output_dir": None} | changes
    return open_folder(from_plain(plain), plain, World(0, 1, torch.device("cpu")))


def opened(**changes: Any) -> tuple[Path, int | None]:
    """Where a run with these keys would write, and the step it goes on from."""
    found, content = look(**changes)
    return found.folder.path, None if content is None else content["step"]


def test_resuming_a_checkpoint_goes_on_in_its_own_run_folder(tmp_path: Path) -> None:
    last = make_run(tmp_path / "run")
    assert opened(resume=str(last)) == (tmp_path / "run", 3)
    assert opened(resume=str(last), output_dir=str(tmp_path / "run")) == (tmp_path / "run", 3)


def test_a_checkpoint_that_lies_in_no_run_folder_gets_the_default_one(tmp_path: Path) -> None:
    copy = make_run(tmp_path / "run").rename(tmp_path / "copy.pt")
    path, step = opened(resume=str(copy))
    assert (path.parts[0], step) == ("runs", 3)


def test_resuming_a_checkpoint_does_not_replace_another_run(tmp_path: Path) -> None:
    last = make_run(tmp_path / "run")
    make_run(tmp_path / "other")
    changes = {"resume": str(last), "output_dir": str(tmp_path / "other")}
    with pytest.raises(ConfigError, match="other already holds a run"):
        opened(**changes)
    assert (tmp_path / "other" / "config.yaml").read_text() == "mine"
    assert opened(**changes, overwrite=True) == (tmp_path / "other", 3)
    assert not (tmp_path / "other" / "config.yaml").exists()
    assert opened(resume=str(last), output_dir=str(tmp_path / "new")) == (tmp_path / "new", 3)


def test_resume_auto_takes_the_last_checkpoint_or_starts_where_there_is_none(
    tmp_path: Path,
) -> None:
    last = make_run(tmp_path / "run")
    changes = {"resume": "auto", "output_dir": str(tmp_path / "run")}
    assert opened(**changes) == (tmp_path / "run", 3)
    last.unlink()
    assert opened(**changes) == (tmp_path / "run", None)
    assert (tmp_path / "run" / "config.yaml").exists()


def auto(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"resume": "auto", "output_dir": str(folder), **changes}


def damage(path: Path) -> None:
    """One bit in the middle is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(tmp_path: Path) -> None:
    last = make_run(tmp_path / "run")
    content = load(last)
    folder = RunFolder(tmp_path / "run")
    save(folder.kept_as(1), {**content, "step": 1})
    save(folder.kept_as(2), {**content, "step": 2})
    save(folder.best, {**content, "step": 9})
    damage(last)
    found, content = look(**auto(tmp_path / "run"))
    assert content is not None
    assert (found.source, content["step"]) == (folder.kept_as(2), 2)
    assert found.notes[0] == f"goes on from {folder.kept_as(2)}, step 2"
    assert "last.pt cannot be read: it is damaged" in found.notes[1]
    assert not last.exists()
    assert last.with_suffix(".damaged").exists()


def test_the_best_one_is_taken_where_no_other_can_be_read(tmp_path: Path) -> None:
    last = make_run(tmp_path / "run")
    save(RunFolder(tmp_path / "run").best, load(last))
    damage(last)
    assert opened(**auto(tmp_path / "run")) == (tmp_path / "run", 3)


def test_a_folder_with_nothing_but_damage_is_not_begun_anew_unasked(tmp_path: Path) -> None:
    last = make_run(tmp_path / "run")
    damage(last)
    with pytest.raises(ConfigError, match=r"no checkpoint that can be read .*overwrite=true"):
        opened(**auto(tmp_path / "run"))
    assert last.exists()


def test_what_a_killed_save_left_is_removed(tmp_path: Path) -> None:
    last = make_run(tmp_path / "run")
    left = last.with_name("last.pt.tmp")
    left.write_bytes(b"half")
    assert opened(**auto(tmp_path / "run")) == (tmp_path / "run", 3)
    assert not left.exists()


def test_an_empty_folder_is_begun(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert opened(**auto(tmp_path / "run")) == (tmp_path / "run", None)


def test_a_named_checkpoint_may_be_trained_longer_and_slower_and_says_so(tmp_path: Path) -> None:
    last = make_run(tmp_path / "run")
    optim = {"name": "adamw", "lr": 1e-4}
    found, _ = look(resume=str(last), steps=9, optim=optim)
    assert found.notes[1] == (
        "another config from here on: optim.lr: 0.001 -> 0.0001; steps: 6 -> 9"
    )
    with pytest.raises(ConfigError, match=r"another config: steps: 6 -> 9"):
        look(**auto(tmp_path / "run", steps=9))
    with pytest.raises(ConfigError, match=r"another config: seed: 0 -> 1"):
        look(resume=str(last), steps=9, seed=1)


def test_a_key_that_came_later_means_its_default(tmp_path: Path) -> None:
    plain = tiny(tmp_path)
    assert differences(plain, {**plain, "guided_scale": False}) == []
    assert differences(plain, {**plain, "guided_scale": True}) == ["guided_scale: False -> True"]


def test_an_option_of_a_part_that_came_later_means_its_default(tmp_path: Path) -> None:
    """Whatever the older config does not state: of a part, of the model at any depth, or a node."""
    plain = tiny(tmp_path)
    optim = {**plain["optim"], "weight_decay": 0.05, "betas": [0.9, 0.999]}
    model = {**plain["model"], "anchors": {"size": 4.0}, "coder": {"clamp": "upper"}}
    assert differences(plain, {**plain, "optim": optim, "model": model}) == []
    assert differences(plain, {**plain, "ema": {"enabled": True, "decay": 0.998}}) == []
    assert differences(plain, {**plain, "optim": {**optim, "weight_decay": 0.1}}) == [
        "optim.weight_decay: 0.05 -> 0.1"
    ]
    other = {**plain, "model": {**model, "anchors": {"size": 2.0}}}
    assert differences(plain, other) == ["model.anchors.size: 4.0 -> 2.0"]


def test_parts_of_another_name_are_told_with_the_options_of_both(tmp_path: Path) -> None:
    plain = tiny(tmp_path)
    told = differences(plain, {**plain, "matcher": {"name": "ssd"}})
    assert "matcher.name: 'retinanet' -> 'ssd'" in told
    assert "matcher.background_iou: 0.4 -> None" in told


def test_a_part_that_is_not_known_is_compared_as_it_stands(tmp_path: Path) -> None:
    plain = {**tiny(tmp_path), "backbone": {"name": "of_a_plugin", "width": 3}}
    assert differences(plain, plain) == []
    changed = {**plain, "backbone": {"name": "of_a_plugin", "width": 4}}
    assert differences(plain, changed) == ["backbone.width: 3 -> 4"]


def test_another_version_is_told(tmp_path: Path) -> None:
    last = make_run(tmp_path / "run")
    old = {"detector_version": "0.0.1", "torch_version": str(torch.__version__)}
    save(last, {**load(last), **old})
    found, _ = look(**auto(tmp_path / "run"))
    assert found.notes[1:] == (
        f"other versions from here on: detector 0.0.1 -> {detector.__version__}",
    )


def test_a_checkpoint_of_the_older_format_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT_VERSION", 1)
        last = make_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"has format 1, to go on 3 is needed; weights="):
        look(**auto(tmp_path / "run"))
    assert load(last)["step"] == 3


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    folder.write_status("running", step=1)
    said = json.loads(folder.status.read_text())
    said["process"] |= {"pid": os.getppid(), "started": status.started(os.getppid())}
    folder.status.write_text(json.dumps(said))
    with pytest.raises(ConfigError, match=f"in use by process {os.getppid()} of this machine"):
        look(**auto(tmp_path / "run"))


def newer(path: Path) -> None:
    """A whole checkpoint as a later version may write it."""
    content = {"config": {}, "step": 7, "format_version": checkpoint.FORMAT_VERSION + 1}
    path.write_bytes(checkpoint.pack(content))


@pytest.mark.parametrize("name", ["last.pt", "step_000000002.pt"])
def test_a_checkpoint_of_a_newer_version_is_left_and_the_run_does_not_begin(
    tmp_path: Path, name: str
) -> None:
    last = make_run(tmp_path / "run")
    if name != last.name:
        damage(last)
    newer(last.with_name(name))
    before = {path: path.read_bytes() for path in last.parent.iterdir()}
    with pytest.raises(ConfigError, match=r"format 4; a newer version of this project wrote it"):
        look(**auto(tmp_path / "run"))
    assert {path: path.read_bytes() for path in last.parent.iterdir()} == before


def test_a_whole_checkpoint_of_things_that_are_not_known_is_left_where_it_is(
    tmp_path: Path,
) -> None:
    last = make_run(tmp_path / "run")
    save(RunFolder(tmp_path / "run").kept_as(2), load(last))
    last.write_bytes(checkpoint.pack({"step": 7, "new": Path("of a kind that comes later")}))
    with pytest.raises(ConfigError, match="holds more than tensors"):
        look(**auto(tmp_path / "run"))
    assert last.exists()


def test_with_more_steps_it_is_said_how_to_go_on(tmp_path: Path) -> None:
    last = make_run(tmp_path / "run")
    changes = {"resume": "auto", "output_dir": str(tmp_path / "run")}
    with pytest.raises(ConfigError) as caught:
        opened(**changes, steps=20)
    assert str(caught.value).endswith(f"; resume={last} output_dir=NEW steps=20 goes on from it so")
    with pytest.raises(ConfigError) as caught:
        opened(**changes, steps=20, seed=3)
    assert "goes on" not in str(caught.value)  # the seed may not differ
    path, step = opened(resume=str(last), output_dir=str(tmp_path / "new"), steps=20)
    assert (path, step) == (tmp_path / "new", 3)


def test_a_run_that_has_ended_says_how_to_train_on(tmp_path: Path) -> None:
    last = make_run(tmp_path / "run")
    content = load(last)
    save(last, {**content, "step": content["config"]["steps"]})
    found, _ = look(resume="auto", output_dir=str(tmp_path / "run"))
    assert any(f"resume={last} output_dir=NEW steps=MORE trains on" in note for note in found.notes)

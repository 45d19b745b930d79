"""Forty-two faults that a trainer can be asked to survive, and the tests that put them in.

Where a fault can be put into a command from outside, a row of cases.py does so as well; these tests
hold what only an inside view can show, such as that two runs are equal to the bit. A row runs its
tests in a process of their own and counts what passed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.commands import ROOT
from tests.guarantees.cases import CASES as ACROSS
from tests.guarantees.page import Case

LISTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "f01_degenerate": (
        "a box without area, or with NaN or inf, among good ones",
        (
            "data/test_annotations.py::test_all_invalid_boxes_are_listed_at_once",
            "data/test_annotations.py::test_an_invalid_box_is_named_with_file_image_and_annotation",
            "data/test_annotations.py::test_dropping_gives_what_the_cleaned_file_gives_and_names_what_it_dropped",
        ),
    ),
    "f02_outside": (
        "a box one pixel outside, and random boxes through the augmentations",
        (
            "data/test_annotations.py::test_a_box_one_pixel_outside_is_kept_as_stated_and_counted",
            "data/augmentations/test_mixing.py::test_a_thousand_random_boxes_stay_inside_and_are_never_inverted",
        ),
    ),
    "f03_corners": (
        "corners written where sides belong",
        ("data/test_review.py::test_corners_read_as_sides_are_told_and_sides_are_not",),
    ),
    "f04_negatives": (
        "images without objects",
        (
            "data/test_annotations.py::test_images_without_objects_are_kept_and_counted",
            "data/test_loader.py::test_evaluation_keeps_crowds_and_images_without_objects",
        ),
    ),
    "f05_empty_rank": (
        "one of two processes has no object in its share",
        (
            "training/test_train_faults.py::test_a_process_without_any_object_in_its_share_changes_nothing",
        ),
    ),
    "f06_crowds": (
        "crowds in training and evaluation",
        (
            "matchers/test_base.py::test_the_loss_with_a_crowd_is_the_loss_with_its_anchors_masked",
            "analysis/test_calibration.py::test_a_detection_on_a_crowd_changes_no_measure",
        ),
    ),
    "f07_category_ids": (
        "category ids with gaps, 0 and 10^6",
        (
            "training/test_train_faults.py::test_other_category_ids_in_the_same_order_change_no_bit_of_the_result",
            "data/readers/test_coco.py::test_category_ids_do_not_matter",
        ),
    ),
    "f08_annotation_ids": (
        "annotation ids of 0, twice, or absent",
        (
            "evaluation/test_coco.py::test_annotation_ids_do_not_matter",
            "inference/test_evaluate_detections.py::test_annotation_ids_that_are_0_twice_or_absent_change_nothing",
        ),
    ),
    "f09_image_ids": (
        "an image listed twice, and images in both splits",
        (
            "data/readers/test_coco.py::test_repeated_images_are_listed",
            "data/test_review.py::test_a_table_counts_class_by_class_and_shared_images_are_told",
        ),
    ),
    "f10_truncated_json": (
        "a JSON file cut at 500 random places",
        ("data/readers/test_coco.py::test_500_truncations_are_500_clean_errors",),
    ),
    "f11_damaged_images": (
        "images that are cut, empty, or no images",
        (
            "data/test_cases.py::test_a_truncated_image_is_found_where_it_is_read",
            "data/test_loader.py::test_another_image_takes_the_place_of_a_damaged_one_where_that_is_asked_for",
        ),
    ),
    "f12_silent_bytes": (
        "bytes of images that change while a run is stopped",
        (
            "training/test_changed_data.py::test_other_pixels_are_said_by_their_size",
            "training/test_changed_data.py::test_another_time_alone_is_said_and_best_stays",
        ),
    ),
    "f13_exif": (
        "images that EXIF turns, in all eight ways",
        (
            "data/test_images.py::test_a_rotation_in_exif_is_not_applied",
            "data/test_headers.py::test_an_image_that_exif_turns_is_refused_until_it_is_said_what_its_boxes_are_of",
        ),
    ),
    "f14_categories": (
        "a category that is not listed",
        ("data/readers/test_coco.py::test_an_unknown_image_or_category_is_refused",),
    ),
    "f15_nan": (
        "a value that is not finite on one of two processes",
        (
            "training/test_processes.py::test_a_value_that_is_not_finite_on_one_process_changes_no_weight_and_can_be_repeated",
            "training/test_train.py::test_bad_steps_in_a_row_stop_the_run_and_name_the_images",
        ),
    ),
    "f16_focal": (
        "logits of +-200 in every precision, every gamma",
        (
            "losses/test_focal.py::test_extreme_logits_keep_value_and_gradient_finite",
            "losses/test_contract.py::test_huge_logits_of_any_precision_stay_finite",
        ),
    ),
    "f17_memory": (
        "no memory on one of two processes",
        ("training/test_processes.py::test_out_of_memory_on_one_process_ends_all_in_time",),
    ),
    "f18_worker_killed": (
        "a loader process killed",
        (
            "data/test_loader_workers.py::test_a_worker_that_is_no_more_is_found_in_time",
            "data/test_loader_workers.py::test_a_worker_may_die_while_the_main_process_does_other_things",
        ),
    ),
    "f19_worker_hangs": (
        "a loader process stopped",
        ("data/test_loader_workers.py::test_a_worker_that_is_stopped_is_found_in_time_and_killed",),
    ),
    "f20_worker_raises": (
        "an exception in a loader process",
        (
            "data/test_loader.py::test_a_bug_in_a_worker_keeps_its_type",
            "data/test_loader.py::test_a_data_error_in_a_worker_arrives_as_it_is",
        ),
    ),
    "f21_shared_memory": (
        "shared memory that is too small",
        ("training/test_crash.py::test_too_little_shared_memory_is_told_before_the_first_step",),
    ),
    "f22_draws": (
        "draws of augmentations over workers and epochs",
        (
            "data/test_loader.py::test_draws_differ_between_images_and_epochs",
            "data/test_loader.py::test_the_number_of_workers_changes_nothing",
        ),
    ),
    "f23_worker_memory": (
        "objects in the memory of workers",
        ("data/test_annotations.py::test_objects_are_packed_so_that_workers_share_them",),
    ),
    "f24_last_batch": (
        "a last batch that does not divide",
        (
            "data/test_sampler.py::test_every_epoch_has_every_image_once",
            "data/test_loader.py::test_ranks_and_micro_batches_take_slices_of_the_same_step",
        ),
    ),
    "f25_evaluation": (
        "images that do not divide over processes",
        ("training/test_train_faults.py::test_two_processes_score_as_one_to_the_bit",),
    ),
    "f26_collective": (
        "one of two processes does not answer",
        ("training/test_processes.py::test_a_process_that_hangs_is_given_up_after_the_timeout",),
    ),
    "f27_one_raises": (
        "one of two processes raises",
        (
            "training/test_processes.py::test_the_error_of_one_process_is_the_end_of_what_torchrun_says",
        ),
    ),
    "f28_restart": (
        "one of two processes killed, torchrun restarts",
        ("training/test_processes.py::test_a_killed_process_is_started_again_to_the_same_end",),
    ),
    "f30_kill": (
        "SIGKILL while a checkpoint is written",
        (
            "training/test_saving.py::test_a_process_killed_while_it_saves_leaves_the_latest_whole_checkpoint",
        ),
    ),
    "f31_disk": (
        "a disk that is full while a checkpoint is written",
        (
            "training/test_saving.py::test_a_disk_that_stays_full_keeps_the_old_one_and_is_told_at_once_and_at_the_end",
            "training/test_saving.py::test_a_full_disk_gives_up_the_oldest_first",
        ),
    ),
    "f32_bits": (
        "flipped bits and cut ends of a checkpoint",
        (
            "runs/test_checkpoint.py::test_every_flipped_bit_is_found",
            "runs/test_checkpoint.py::test_every_truncation_is_found",
        ),
    ),
    "f33_signals": (
        "a signal to one of two processes",
        (
            "training/test_processes.py::test_a_signal_to_one_of_two_saves_the_same_step_on_both_and_loses_none",
        ),
    ),
    "f34_resume": (
        "a stop at an epoch's end, within it, while accumulating",
        ("training/test_train.py::test_a_stopped_and_resumed_run_is_the_unbroken_run_to_the_bit",),
    ),
    "f35_changed": (
        "another config, other data, a newer version",
        (
            "training/test_train.py::test_resume_auto_refuses_another_config_and_names_the_key",
            "runs/test_resume.py::test_differences_name_the_key_and_both_values",
            "training/test_changed_data.py",
        ),
    ),
    "f36_checkpoint_code": (
        "a pickle that runs code",
        (
            "runs/test_checkpoint.py::test_code_in_a_checkpoint_is_refused_and_not_run",
            "test_packaging.py::TestLimits::test_nothing_shipped_runs_code_from_a_file",
        ),
    ),
    "f37_config_code": (
        "targets, resolvers and plugins in configs",
        (
            "test_cli.py::test_a_target_is_refused_in_every_place",
            "test_cli.py::test_a_resolver_is_refused",
            "test_hostile_configs.py",
        ),
    ),
    "f38_names": (
        "names that lead out of the folder",
        (
            "data/readers/test_coco.py::test_a_hostile_file_name_is_refused_before_any_image_is_read",
            "data/test_inside.py",
        ),
    ),
    "f39_archives": (
        "an archive with a wrong checksum, entries that lead out, more than it may hold",
        ("test_scripts.py::TestDownloadOfCoco",),
    ),
    "f40_bombs": (
        "an image of a few bytes and very many pixels",
        ("data/test_images.py::test_a_bomb_is_refused_before_it_is_decoded",),
    ),
    "f41_services": (
        "who can reach what listens",
        (
            "test_packaging.py::TestLimits::test_what_listens_listens_on_this_machine_alone",
            "inference/test_serve.py::test_sigterm_finishes_what_is_under_way",
        ),
    ),
    "f42_pages": (
        "class and file names that are HTML; the wheel built twice",
        (
            "laboratory/report/test_report.py::test_names_of_classes_and_files_are_shown_as_text",
            "test_wheel.py::test_the_same_sources_give_the_same_wheel",
            "test_packaging.py::TestLock::test_has_a_hash_for_every_package",
        ),
    ),
}
"""By name: what is put in, and the tests, below `tests/`. The number is that of the list."""


def counted(name: str) -> Callable[[Path], str]:
    """Runs the tests of a row, each in its own process of the system where it starts one."""

    def figure(folder: Path) -> str:
        tests = [str(ROOT / "tests" / test) for test in LISTED[name][1]]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *tests],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        ends = re.findall(r"^.*\d+ \w+.* in [\d.]+s.*$", done.stdout, re.MULTILINE)
        assert ends, done.stdout[-2000:] + done.stderr[-2000:]
        last = ends[-1]
        found = {word: int(n) for n, word in re.findall(r"(\d+) (\w+)", last)}
        if done.returncode != 0:
            print(done.stdout[-3000:], flush=True)
        bad = {word: n for word, n in found.items() if word in ("failed", "errors", "error")}
        skipped = f", {found['skipped']} skipped" if "skipped" in found else ""
        total = found.get("passed", 0) + sum(bad.values())
        return f"{found.get('passed', 0)} of {total} tests hold{skipped}"

    return figure


def rows() -> dict[str, Case]:
    """A row of each fault, in the order of the list."""
    found = {name: Case(injection, counted(name)) for name, (injection, _) in LISTED.items()}
    found["f29_devices"] = Case(
        "a run stopped and gone on with by another number of processes, float64",
        ACROSS["devices"].figure,
    )
    return dict(sorted(found.items()))

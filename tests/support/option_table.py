# SPDX-License-Identifier: Apache-2.0
"""Which test sees the effect of which option: command → option → file below ``tests`` and test."""

from __future__ import annotations

from typing import Dict

#: options of every command
EVERYWHERE: Dict[str, str] = {
    "--help": "test_help.py::test_every_option_has_a_default_or_is_required",
    "--verbose": "integration/test_option_reach.py::test_more_or_fewer_messages",
    "--quiet": "integration/test_option_reach.py::test_more_or_fewer_messages",
    "--help-all": "test_parser.py::test_help_shows_the_common_options_and_help_all_the_rest",
    "--log-format": "test_parser.py::test_messages_as_json",
}
_VERBS = "om_runner/commands/test_options.py::test_an_option_changes_the_result"
_EVALUATE = "train/evaluate/test_evaluate.py::test_an_option_is_part_of_the_request"
_CHECK = "export/preflight/test_estimate.py::test_an_option_of_the_check_changes_what_it_says"
_PAGES = "om_runner/qc/test_command.py::test_the_pages_can_show_one_subject_and_find_the_fixed_image_elsewhere"
_PHANTOM = "integration/test_option_reach.py::test_an_option_of_phantom_changes_what_it_writes"
_REQUEST = "integration/test_option_reach.py::test_an_option_is_part_of_the_request"
_TRAINING = "train/settings/test_options.py::test_an_option_reaches_the_run"


def _seen(test: str, *options: str) -> Dict[str, str]:
    return {option: test for words in options for option in words.split()}


SEEN_BY: Dict[str, Dict[str, str]] = {
    "export": {
        **_seen(
            _REQUEST,
            "--checkpoint --out --h5-indexing --skip-onnx --check-determinism --variant --shape --batch",
            "--soc-version --preflight --tune-kernels --precision --plan --atc-flag --toolchain",
        )
    },
    "export golden": {**_seen(_REQUEST, "--exported --out --executions --seed")},
    "export preflight": {
        **_seen(_CHECK, "--pb --soc-version --out-nodes --out --estimate --precision --plan --input-shape")
    },
    "export tune": {
        **_seen(
            _REQUEST,
            "--checkpoint --input --atlas --out --h5-indexing --variant --shape --profile --start --batch",
            "--soc-version --device --reference-python --toolchain",
        ),
        "--layers": "export/tune/test_command.py::test_a_search_from_checkpoint_to_plan",
        "--max-trials": "export/tune/test_command.py::test_a_search_from_checkpoint_to_plan",
        "--resume": "export/tune/test_command.py::test_ctrl_c_keeps_the_journal",
    },
    "om_runner": {
        **_seen(
            _REQUEST,
            "--input --pairs --out --atlas --model --contract --threads --shard --device-timeout",
            "--label-interpolation --compress --bids-filter --reference-python --reference-cache --toolchain --device",
            "--devices --scheduler --profile-ops",
        ),
        "--limit": "om_runner/results/test_resume.py::test_a_limit_keeps_the_rows_of_the_scans_that_it_leaves_out",
        "--labels": "om_runner/results/test_resume.py::test_a_limit_keeps_the_rows_of_the_scans_that_it_leaves_out",
        "--force": "om_runner/registration/test_session.py::test_a_forced_second_run_gives_the_same_bytes_and_replaces_the_first",
        "--retry-failed": "om_runner/results/test_resume.py::test_failed_scans_are_tried_again_alone_on_request",
        "--dry-run": "om_runner/results/test_resume.py::test_a_dry_run_writes_nothing_and_opens_no_device",
        "--trace": "om_runner/registration/test_queues.py::test_the_trace_is_json_with_every_stage_of_every_subject",
        "--series": "om_runner/inputs/test_series.py::test_frames_are_registered_as_scans_are",
        "--label-map": "integration/test_label_maps.py::test_the_runner_takes_labels_of_another_tool",
        "--affine": "om_runner/registration/test_geometry.py::test_an_affine_file_per_subject",
        "--orientation": "om_runner/registration/test_geometry.py::test_a_lying_header_is_explained_and_overridden",
        "--intensity": "om_runner/registration/test_geometry.py::test_any_scale_of_intensities_by_percentile",
        "--outputs": "om_runner/registration/test_geometry.py::test_inverse_and_jacobian_on_request",
        "--warp-format": "om_runner/registration/test_geometry.py::test_the_warp_in_other_layouts_is_the_same_warp",
        "--space": "om_runner/registration/test_geometry.py::test_the_space_of_the_results",
        "--edge": "om_runner/registration/test_geometry.py::test_zero_and_clamp_at_the_edge",
        "--bids": "om_runner/bids/test_derivative.py::test_without_a_description_bids_must_be_said",
        "--participant-label": "om_runner/bids/test_derivative.py::test_the_app_registers_participants_apart_and_the_group_has_them_all",
        "--session-label": "om_runner/bids/test_derivative.py::test_the_app_registers_participants_apart_and_the_group_has_them_all",
        "--atlas-label": "om_runner/bids/test_derivative.py::test_a_second_run_takes_results_over_and_another_label_of_the_atlas_does_not",
        "--compare": "om_runner/precision/test_report.py::test_figures_of_a_known_fault",
        "--profile": "om_runner/precision/test_verdicts.py::test_the_same_error_passes_a_wider_profile_and_none",
    },
    "om_runner apply": {
        **_seen(
            _VERBS,
            "--transform --from --image --points --out --fixed --moving --interpolation --edge --beyond",
            "--points-are --frame",
        )
    },
    "om_runner audit": {
        **_seen(
            _REQUEST, "--input --atlas --model --contract --other-model --out --limit --profile --toolchain --device"
        )
    },
    "om_runner compare-files": {**_seen(_REQUEST, "--golden --results --out --profile --device-was")},
    "om_runner convert-warp": {**_seen(_VERBS, "--warp --from --fixed --moving --out --warp-format --dtype")},
    "om_runner device-check": {
        **_seen(
            _REQUEST,
            "--out --short --only --compare --rung-seconds --shape --exported --reference-python --device",
            "--soc-version --toolchain",
        )
    },
    "om_runner evaluate": {
        **_seen(
            _VERBS,
            "--fixed-seg --moved-seg --moving-seg --labels --interpolation --warp --from --fixed --moving",
            "--fixed-points --moving-points --frame --l2r-compat --format --out",
        ),
        "--label-map": "integration/test_label_maps.py::test_the_verb_scores_labels_of_another_tool",
    },
    "om_runner invert": {
        **_seen(_VERBS, "--warp --from --fixed --moving --inverse --warp-format --mask --tolerance --format --out")
    },
    "om_runner jacobian": {
        **_seen(_VERBS, "--warp --from --fixed --moving --map --log-map --mask --l2r-compat --format --out")
    },
    "om_runner layers": {
        **_seen(
            _REQUEST,
            "--input --atlas --model --contract --out --dump --single --no-effect --layer-limit",
            "--output-limit --limit-gib --reference-python --toolchain --device",
        )
    },
    "om_runner participant": {
        "--skip-bids-validator": "om_runner/bids/test_derivative.py::test_the_app_registers_participants_apart_and_the_group_has_them_all"
    },
    "om_runner qc": {**_seen(_PAGES, "--registered --atlas --out --subject")},
    "om_runner scheduler": {"--listen": _REQUEST, "--port": _REQUEST, "--scheduler-file": _REQUEST},
    "om_runner worker": {**_seen(_REQUEST, "--scheduler --device --listen --slots")},
    "train": {
        **_seen(
            _TRAINING,
            "--data --atlas --out --init --h5-indexing --resume --pairs --split --augment --cache",
            "--synthetic --synthetic-heads --same-contrast --validation-pairs --makers --variant --shape",
            "--batch --integration-steps --epochs --steps-per-epoch --lr --lr-half-life --seed --keep",
            "--save-every --threads --convolutions --no-tensorboard --loss --lambda --penalty --prior-lambda",
            "--image-sigma --bidir --dice-weight --labels --device --loss-scale --loss-scale-value",
            "--loss-scale-grow-every --loss-scale-shrink-after --workers --rank --worker-timeout",
            "--precision-mode --modify-mixlist --fusion-switch --iterations-per-loop --device-id --data-dump",
            "--data-dump-step --over-dump --profiling --npu-parameter",
        )
    },
    "train evaluate": {
        **_seen(_EVALUATE, "--checkpoint --data --atlas --atlas-seg --part --labels --variant --h5-indexing --threads"),
        "--out": "train/evaluate/test_evaluate.py::test_the_scores_are_those_of_the_shifted_labels",
        "--label-map": "integration/test_label_maps.py::test_the_evaluation_of_a_training_scores_labels_of_another_tool",
    },
    "train prepare": {
        **_seen(
            _REQUEST,
            "--data --out --reference --format --array --transform --tool --shape --intensity --orientation",
            "--labels --jobs --force --dry-run",
        ),
        "--label-map": "integration/test_label_maps.py::test_prepared_labels_are_those_of_the_map",
    },
    "train rank-table": {"--hosts": _REQUEST, "--devices": _REQUEST, "--out": _REQUEST},
    "vxm_convert device-check": {
        **_seen(
            _REQUEST,
            "--out --short --only --compare --rung-seconds --shape --exported --reference-python --device",
            "--soc-version --toolchain",
        )
    },
    "vxm_convert doctor": {
        "--json": "vxm_convert/toolchain/test_doctor.py::test_json_holds_the_table_and_the_conclusions"
    },
    "vxm_convert inspect": {
        "--json": "vxm_convert/inspection/test_inspect.py::test_json_is_for_programs",
        "--ops": "vxm_convert/inspection/test_inspect.py::test_ops_lists_one_line_each",
    },
    "vxm_convert phantom": {**_seen(_PHANTOM, "--out --kind --shape --subjects --seed")},
}

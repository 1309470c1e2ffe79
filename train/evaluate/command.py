# SPDX-License-Identifier: Apache-2.0
"""``python -m train evaluate``: Dice of a checkpoint on scans with segmentations, per structure, before and after
registration.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from train.data.checks import atlas_shape, check_cohort
from train.data.cohort import Cohort, read_cohort, segmentation_of
from train.data.pairs import PairOrder
from train.data.provenance import sources_of
from train.data.scan_list import Subject
from train.evaluate.page import build_page, table_text
from train.evaluate.scores import SubjectScores, ids_of, overall, structures, subject_mean
from train.settings.run import SPLIT_NAMES, DataSettings
from vxm_convert.artifacts.files import check_output_folder, read_bounded, write_json, write_text
from vxm_convert.artifacts.names import SPLIT_NAME
from vxm_convert.artifacts.sha256sums import begin_manifest, finish_manifest
from vxm_convert.artifacts.targets import check_apart
from vxm_convert.cliargs import add_common_group, add_label_map, help_texts, run_main, set_up_logging
from vxm_convert.errors import EXIT_OK, ArtifactError, TrainingError
from vxm_convert.given import refuse_unused, unless
from vxm_convert.metrics.label_maps import load_label_map
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, LABEL_SETS, LabelSet, load_label_set
from vxm_convert.model.spec import VARIANTS, ModelSpec, Shape3
from vxm_convert.model.spec_file import read_spec
from vxm_convert.parser import Parser
from vxm_convert.scans.scan_file import scan_sha256
from vxm_convert.weights.box import checkpoint_or_box
from vxm_convert.weights.files import find_checkpoint
from vxm_convert.weights.keras_h5 import INDEXINGS

JSON_NAME, CSV_NAME, PAGE_NAME = "evaluation.json", "evaluation.csv", "evaluation.html"
SCHEMA = 1
NOT_AVAILABLE = "n/a"
_MAX_BYTES = 64 << 20


def build_parser() -> argparse.ArgumentParser:
    """Options of the evaluation."""
    parser = Parser(
        prog="python -m train evaluate",
        **help_texts(
            "Register scans with a checkpoint on the CPU and score their segmentations.",
            [
                "python -m train evaluate --checkpoint build/train --data scans --atlas atlas.npz",
                "python -m train evaluate --checkpoint build/train --data scans --atlas atlas.npz --part test",
            ],
        ),
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--checkpoint",
        required=True,
        type=Path,
        metavar="FILE|DIR",
        help="TensorFlow checkpoint, folder of checkpoints (the newest is taken), a Keras .h5 file, or box for "
        "those in models/ (required)",
    )
    files.add_argument(
        "--data", required=True, type=Path, metavar="DIR|FILE", help="scans, or a manifest, as in training (required)"
    )
    files.add_argument(
        "--atlas",
        default=None,
        type=Path,
        metavar="FILE",
        help="fixed image, on the network grid (required unless the manifest names every fixed scan)",
    )
    files.add_argument(
        "--atlas-seg",
        default=None,
        type=Path,
        metavar="FILE",
        help="segmentation of the atlas (default: in its .npz, or beside it)",
    )
    files.add_argument(
        "--out",
        default=Path("build/evaluated"),
        type=Path,
        metavar="DIR",
        help="folder for evaluation.json, .csv and .html (default: %(default)s)",
    )
    files.add_argument(
        "--part",
        default="all",
        choices=("all",) + SPLIT_NAMES,
        help="use only the scans of this part in the split.json beside the checkpoint (default: %(default)s)",
    )
    scoring = parser.add_argument_group("scores")
    scoring.add_argument(
        "--labels",
        default=DEFAULT_LABEL_SET,
        metavar="NAME|FILE",
        help=f"structures: {', '.join(sorted(LABEL_SETS))}, or a file with an id and a name per line "
        "(default: %(default)s)",
    )
    add_label_map(scoring, "all scans but the atlas")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--variant",
        default=None,
        choices=sorted(VARIANTS),
        help="network variant (default: that of the spec.json beside the checkpoint, else vm2)",
    )
    model.add_argument(
        "--h5-indexing",
        default="ij",
        choices=INDEXINGS,
        help="axis order of the flow in a .h5 file (default: %(default)s)",
    )
    model.add_argument(
        "--threads", default=0, type=int, metavar="N", help="CPU threads of TensorFlow; 0: all (default: %(default)s)"
    )
    add_common_group(parser)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the verb."""
    words, parser = sys.argv[2:] if argv is None else argv, build_parser()
    args = parser.parse_args(words)
    unused = unless(args.atlas is not None, "no atlas is given; it goes with --atlas", "--atlas-seg")
    refuse_unused(parser, words, unused)
    set_up_logging(args)
    return run_main(lambda: _evaluate(args), "train evaluate")


def _evaluate(args: argparse.Namespace) -> int:
    if args.threads < 0:
        raise TrainingError(f"threads: got {args.threads}, expected at least 0; pass --threads 0")
    check_apart(args.out, args.data, "--data")
    labels = load_label_set(args.labels)
    mapped = None if args.label_map is None else load_label_map(args.label_map)
    files = find_checkpoint(checkpoint_or_box(args.checkpoint, args.variant or "vm2"))
    subjects = read_cohort(DataSettings(args.data, args.atlas), 0).subjects
    if args.part != "all":
        subjects = _of_part(subjects, files.path.parent, args.part)
    cohort = Cohort(subjects)
    spec = _spec(args, files.path.parent, atlas_shape(args.atlas if args.atlas is not None else subjects[0].moving))
    atlas_seg = args.atlas_seg or (segmentation_of(args.atlas) if args.atlas is not None else None)
    check_cohort(cohort, args.atlas, atlas_seg, spec.volume_shape, False, labels, mapped)
    from train.data.loading import Loader
    from train.evaluate.register import score_pairs  # TensorFlow loads here, so that --help and bad options need none

    out = check_output_folder(args.out)
    pairs = PairOrder(cohort.train, "atlas", 0).each_once()
    loader = Loader(spec, args.atlas, atlas_seg, mapped=mapped)
    scores = score_pairs(
        args.checkpoint, pairs, loader, ids_of(labels, background=True), args.h5_indexing, args.threads
    )
    made_from = {**files.hashes(), **sources_of(cohort, args.atlas)}
    if atlas_seg is not None and atlas_seg != args.atlas:
        made_from["atlas_seg"] = scan_sha256(atlas_seg)
    begin_manifest(out)
    document = _document(args, labels, scores, spec, made_from)
    write_json(out / JSON_NAME, document)
    _write_csv(out / CSV_NAME, labels, scores)
    write_text(out / PAGE_NAME, build_page(document))
    finish_manifest(out, (JSON_NAME, CSV_NAME, PAGE_NAME), {})
    sys.stdout.write(table_text(document) + f"page: {out / PAGE_NAME}\n")
    return EXIT_OK


def _of_part(subjects: Sequence[Subject], folder: Path, part: str) -> Tuple[Subject, ...]:
    """Those that a run's split.json puts there: by whole path, or by name where the scans have moved."""
    path = folder / SPLIT_NAME
    try:
        split = json.loads(
            read_bounded(path, _MAX_BYTES, "the split of the training run", "pass --part all").decode("utf-8")
        )
        listed = [str(name) for name in split[part]]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ArtifactError(f"{path}: not a split of a training run ({exc}); pass --part all") from exc
    names = {Path(name).name for name in listed}
    found = [s for s in subjects if str(s.moving) in listed] or [s for s in subjects if s.moving.name in names]
    if not found:
        raise TrainingError(
            f"{path}: its part {part!r} has {len(listed)} scans, none of them is in --data; pass --part all or other "
            "data"
        )
    return tuple(found)


def _spec(args: argparse.Namespace, folder: Path, shape: Shape3) -> ModelSpec:
    beside = None if args.variant is not None else read_spec(folder)
    if beside is None:
        return ModelSpec(args.variant or "vm2", shape)
    found = beside.spec
    return ModelSpec(found.variant, shape, 1, found.integration_steps)


def _document(
    args: argparse.Namespace, labels: LabelSet, scores: List[SubjectScores], spec: ModelSpec, made_from: Dict[str, str]
) -> Dict[str, Any]:
    ids = ids_of(labels, background=False)
    rows = []
    for row in scores:
        means = {f"mean_{side}": subject_mean(getattr(row, side), ids) for side in ("before", "after")}
        per_label = {
            side: getattr(row, side) and {str(k): v for k, v in getattr(row, side).items()}
            for side in ("before", "after")
        }
        rows.append({**asdict(row), **per_label, **means})
    return {
        "schema": SCHEMA,
        "kind": "evaluation",
        "checkpoint": str(args.checkpoint),
        "model": spec.to_dict(),
        "label_set": labels.name,
        "label_map": args.label_map,
        "labels": {str(n): labels.names.get(n, "Background") for n in ids_of(labels, background=True)},
        "n_samples": len(scores),
        "overall": overall(scores, labels),
        "structures": structures(scores, labels),
        "subjects": rows,
        "made_from": made_from,
    }


def _write_csv(path: Path, labels: LabelSet, scores: List[SubjectScores]) -> None:
    """One line per scan and structure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("scan", "label", "structure", "dice_before", "dice_after", "folding", "seconds"))
    for row in scores:
        for label in ids_of(labels, background=True):
            values = [None if side is None else side[label] for side in (row.before, row.after)]
            writer.writerow(
                [row.name, label, labels.names.get(label, "Background")]
                + [NOT_AVAILABLE if v is None else repr(v) for v in values]
                + [repr(row.folding), repr(row.seconds)]
            )
    write_text(path, text.getvalue())

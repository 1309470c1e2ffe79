# SPDX-License-Identifier: Apache-2.0
# PYTHON_ARGCOMPLETE_OK
"""``python -m vxm_convert``: doctor, device-check, inspect, verify, phantom, profiles, sim. Parses and prints; the work
of each verb is in its module.
"""

from __future__ import annotations

import vxm_convert.interrupts  # noqa: F401 -- before anything that takes time

# isort: split
import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterable, List, Optional

from vxm_convert.cliargs import add_common_group, help_texts, run_main, set_up_logging
from vxm_convert.device_check.options import SUMMARY, add_check_arguments, help_of_check
from vxm_convert.errors import EXIT_OK, EXIT_USER, ToolchainError
from vxm_convert.model.spec import parse_shape
from vxm_convert.parser import Parser
from vxm_convert.text import line_of

#: the same as `vxm_convert.profiles.listing.ACTIONS`, which reads YAML and is imported late
PROFILE_ACTIONS = ("list", "show", "figures", "schema")
PHANTOM_KINDS = ("heads", "shapes")


def build_parser() -> argparse.ArgumentParser:
    """All sub-commands."""
    parser = Parser(
        prog="python -m vxm_convert",
        **help_texts(
            "Show what is installed, what a file is and whether a chain of files is intact; make synthetic scans; use "
            "the simulator.",
            [
                "python -m vxm_convert doctor",
                "python -m vxm_convert inspect build/vxm/vxm.om",
                "python -m vxm_convert verify build/train build/vxm build/registered",
            ],
        ),
    )
    commands = parser.add_subparsers(title="verbs (VERB --help says more)", dest="command", metavar="VERB")
    commands.required = True

    doctor = commands.add_parser(
        "doctor",
        help="show what is installed, what is missing, and what to do",
        **help_texts(
            "Show Python, packages, CANN, driver, devices and the simulator, and which stages can run. Installs nothing.",
            ["python -m vxm_convert doctor", "python -m vxm_convert doctor --json"],
            {0: "done, even if something is missing"},
        ),
    )
    doctor.add_argument("--json", action="store_true", help="print the table as JSON (default: off)")
    doctor.set_defaults(run=_doctor)

    check = commands.add_parser("device-check", help=SUMMARY, **help_of_check())
    add_check_arguments(check)
    check.set_defaults(run=_device_check)

    inspect = commands.add_parser(
        "inspect",
        help="show what a file is: graph, model, weights, contract",
        **help_texts(
            "Show what a contract.json, side-car, .pb, .onnx, .om, .h5, dump file or TensorFlow checkpoint contains. "
            "Changes nothing.",
            [
                "python -m vxm_convert inspect build/vxm/vxm.om --ops",
                "python -m vxm_convert inspect build/train/model-20",
            ],
        ),
    )
    inspect.add_argument(
        "file", type=Path, metavar="FILE", help="the file, or a checkpoint's prefix; the suffix determines the kind"
    )
    inspect.add_argument(
        "--ops", action="store_true", help="list every operator or tensor, with dtypes and shape (default: off)"
    )
    inspect.add_argument("--json", action="store_true", help="print everything as JSON (default: off)")
    inspect.set_defaults(run=_inspect)

    verify = commands.add_parser(
        "verify",
        help="check files against the hashes in side-cars and contracts",
        **help_texts(
            "Recompute sha256 sums and follow which file was made from which, across folders, from checkpoint to "
            "report. The last line names the first broken link.",
            ["python -m vxm_convert verify build/train build/vxm build/registered"],
            {0: "no link is broken", 1: "a link is broken, or something to fix"},
        ),
    )
    verify.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="folders that train, export or om_runner wrote; several folders form one chain",
    )
    verify.set_defaults(run=_verify)

    phantom = commands.add_parser(
        "phantom",
        help="make a synthetic cohort with known warps",
        **help_texts(
            "Make a synthetic cohort with known warps, to try things out, not for science.",
            [
                "python -m vxm_convert phantom --out build/cohort",
                "python -m vxm_convert phantom --kind shapes --subjects 60 --shape 64,64,64 --out build/shapes",
            ],
            writes="scans/, truth/ and phantom.json; with heads also atlas.npz, with shapes pairs.csv (a manifest for "
            "train --data).",
        ),
    )
    phantom.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the cohort (required)")
    phantom.add_argument(
        "--kind",
        default="heads",
        choices=PHANTOM_KINDS,
        help="heads: an atlas and subjects deformed from it; shapes: pairs of random label maps without anatomy, for "
        "training (default: %(default)s)",
    )
    phantom.add_argument(
        "--shape",
        default="48,64,64",
        metavar="X,Y,Z",
        help="grid in voxels, each side at least 16 (default: %(default)s)",
    )
    phantom.add_argument(
        "--subjects",
        type=int,
        default=4,
        metavar="N",
        help="number of scans, or of pairs for shapes (default: %(default)s)",
    )
    phantom.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed; the same seed makes the same files (default: %(default)s)",
    )
    phantom.set_defaults(run=_phantom)

    profiles = commands.add_parser(
        "profiles",
        help="print acceptance profiles and the figures they may limit",
        **help_texts(
            "Print acceptance profiles: the limits of a precision report, which om_runner takes with --profile. Writes "
            "nothing.",
            ["python -m vxm_convert profiles", "python -m vxm_convert profiles show research"],
        ),
    )
    profiles.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=PROFILE_ACTIONS,
        metavar="|".join(PROFILE_ACTIONS),
        help="what to print (default: %(default)s)",
    )
    profiles.add_argument(
        "name", nargs="?", default=None, metavar="NAME|FILE", help="profile for show (default: research)"
    )
    profiles.set_defaults(run=_profiles)

    sim = commands.add_parser(
        "sim",
        help="use the simulated atc and acl from a shell",
        **help_texts(
            "Make your own programs find the simulated atc and acl.", ['eval "$(python -m vxm_convert sim env)"']
        ),
    )
    actions = sim.add_subparsers(title="actions", dest="action", metavar="ACTION")
    actions.required = True
    env = actions.add_parser(
        "env",
        help="print export lines for a shell",
        **help_texts(
            "Print export lines that put the simulated atc on PATH and the simulated acl on PYTHONPATH.",
            ['eval "$(python -m vxm_convert sim env)"'],
        ),
    )
    env.set_defaults(run=_sim_env)
    for command in (doctor, check, inspect, verify, phantom, profiles, env):
        add_common_group(command)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of `python -m vxm_convert`."""
    given = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser()
    args = parser.parse_args(given)
    args.words = given[1:]
    if args.command == "profiles" and args.name is not None and args.action != "show":
        parser.error(f"profiles {args.action}: takes no NAME, got {args.name!r}; show does")
    set_up_logging(args)
    return run_main(lambda: args.run(args), "vxm_convert")


def _doctor(args: argparse.Namespace) -> int:
    from vxm_convert.toolchain.doctor import examine, summary, to_dict

    rows = examine()
    if args.json:
        print(json.dumps(to_dict(rows), indent=2, sort_keys=True))
        return EXIT_OK
    for row in rows:
        print(f"{row.subject:12s} {row.state:8s} {row.detail}")
    print("\n" + "\n".join(summary(rows)))
    return EXIT_OK


def _device_check(args: argparse.Namespace) -> int:
    from vxm_convert.device_check.comparison import lines_of

    if args.compare is not None and len(args.words) <= 2:
        print("\n".join(line_of(line) for line in lines_of(args.compare)))
        return EXIT_OK
    # A stage of its own, which this package never imports; its messages and exit code are ours. It also refuses options
    # that have no effect.
    return subprocess.call([sys.executable, "-m", "om_runner", "device-check", *args.words])


def _inspect(args: argparse.Namespace) -> int:
    from vxm_convert.inspection.inspect import describe_file, inspect_file

    if args.json:
        print(json.dumps({"file": str(args.file), **inspect_file(args.file).to_dict()}, indent=2, sort_keys=True))
    else:
        print("\n".join(line_of(line) for line in describe_file(args.file, args.ops)))
    return EXIT_OK


def _verify(args: argparse.Namespace) -> int:
    from vxm_convert.inspection.verify import BROKEN, UNPROVEN, first_broken, folders_without_list, verify_folders

    links = verify_folders(args.folders)
    for link in links:
        if not args.quiet or link.state in (BROKEN, UNPROVEN):
            print(line_of(f"{link.state:8s} {link.step:13s} {link.subject}: {link.text}"))
    for folder in folders_without_list(args.folders):
        print(
            line_of(
                f"note: {folder}: has no SHA256SUMS, so only files with a side-car or a recorded sha256 are checked"
            )
        )
    broken = [link for link in links if link.state == BROKEN]
    print(f"{len(links)} links, {len(broken)} broken")
    for link in broken:
        sys.stderr.write(line_of(f"vxm_convert: error: {link.subject}: {link.text}") + "\n")
    first = first_broken(links)
    if first is None:
        return EXIT_OK
    print(line_of(f"first broken link: {first.step}: {first.subject}: {first.text}"))
    return EXIT_USER


def _phantom(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from vxm_convert.synthetic.heads import ATLAS_FILE, SCANS_FOLDER, PhantomSettings, write_cohort
    from vxm_convert.synthetic.shapes import write_pairs

    settings = PhantomSettings(parse_shape(args.shape), args.subjects, args.seed)

    def progress(numbers: Iterable[int]) -> Iterable[int]:
        bar: Iterable[int] = tqdm(numbers, unit="scan", disable=True if args.quiet else None)
        return bar

    if args.kind == "shapes":
        print(f"pairs: {write_pairs(args.out, settings, progress)} ({settings.subjects})")
        return EXIT_OK
    scans = write_cohort(args.out, settings, progress)
    print(f"atlas: {args.out / ATLAS_FILE}\nscans: {args.out / SCANS_FOLDER} ({len(scans)})")
    return EXIT_OK


def _profiles(args: argparse.Namespace) -> int:
    from vxm_convert.profiles.listing import lines_for

    print("\n".join(lines_for(args.action, args.name)))
    return EXIT_OK


def _sim_env(args: argparse.Namespace) -> int:
    for line in simulator_exports():
        print(line)
    return EXIT_OK


def simulator_exports() -> List[str]:
    """Shell lines that put the simulated atc on PATH and the simulated acl on PYTHONPATH.

    They include VXM_TOOLCHAIN=sim, so that the simulated atc on PATH is never taken for CANN.
    """
    import vxm_convert.sim.version

    shims = Path(vxm_convert.sim.version.__file__).resolve().parent / "shims"
    root = shims.parents[2]
    if not (shims / "bin" / "atc").is_file():
        raise ToolchainError(f"{shims}: the simulator's shims are not installed; install vxm_convert again")
    variables: Dict[str, str] = {"VXM_TOOLCHAIN": "sim", "VXM_SIM_PYTHON": sys.executable}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines.append(f'export PATH={shlex.quote(str(shims / "bin"))}"${{PATH:+:$PATH}}"')
    lines.append(
        f'export PYTHONPATH={shlex.quote(str(shims / "python") + ":" + str(root))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    )
    return lines


if __name__ == "__main__":
    sys.exit(main())

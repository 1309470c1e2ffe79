# SPDX-License-Identifier: Apache-2.0
"""``python -m vxm_convert``: doctor, inspect, verify, phantom, profiles, sim. Parses and prints; each command's work is
in its module.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Dict, Iterable, List, Optional

from vxm_convert.cliargs import add_common_group, run_main, set_up_logging
from vxm_convert.errors import EXIT_OK, EXIT_USER, ToolchainError
from vxm_convert.model.spec import parse_shape

#: as `vxm_convert.profiles.listing.ACTIONS`, which reads YAML and is imported late
PROFILE_ACTIONS = ("list", "show", "figures", "schema")
PHANTOM_KINDS = ("heads", "shapes")


def build_parser() -> argparse.ArgumentParser:
    """All sub-commands."""
    parser = argparse.ArgumentParser(
        prog="python -m vxm_convert",
        description="What is installed, what a file is, whether a chain of files is intact; synthetic scans; the "
        "simulator.",
        epilog="exit codes: 0 done, 1 something to fix (one message), 2 usage; COMMAND --help says more",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True

    doctor = commands.add_parser(
        "doctor",
        help="what is installed, what is missing, what to do",
        description="Looks at Python, packages, CANN, driver, devices and the simulator; installs nothing. Exit 0 "
        "whatever is missing.",
    )
    doctor.add_argument("--json", action="store_true", help="print the table as JSON (default: off)")
    doctor.set_defaults(run=_doctor)

    inspect = commands.add_parser(
        "inspect",
        help="what a file of the chain is: graph, model, weights, contract, side-car",
        description="Says what a contract.json, side-car, .pb, .onnx, .om, .h5, dump file or TensorFlow checkpoint "
        "is. Changes nothing.",
    )
    inspect.add_argument(
        "file", type=Path, metavar="FILE", help="the file, or a checkpoint's prefix; its suffix says the kind"
    )
    inspect.add_argument(
        "--ops", action="store_true", help="list every operator or tensor, with dtypes and shape (default: off)"
    )
    inspect.add_argument("--json", action="store_true", help="print everything as JSON (default: off)")
    inspect.set_defaults(run=_inspect)

    verify = commands.add_parser(
        "verify",
        help="are the files those that their side-cars and contracts recorded?",
        description="Recomputes sha256 sums and follows who was made from whom, across folders, from checkpoint to "
        "report. "
        "Exit 1 if a link is broken; the last line names the first one.",
    )
    verify.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="folders that train, export or om_runner wrote; several make one chain",
    )
    verify.set_defaults(run=_verify)

    phantom = commands.add_parser(
        "phantom",
        help="make a synthetic cohort: atlas, scans with segmentations, true flows",
        description="Heads: writes atlas.npz, scans/, truth/ and phantom.json. Shapes: pairs of random label maps, in "
        "scans/ and "
        "pairs.csv (a manifest for train --data), truth/ and phantom.json. For trying things out, never for science.",
    )
    phantom.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the cohort (required)")
    phantom.add_argument(
        "--kind",
        default="heads",
        choices=PHANTOM_KINDS,
        help="heads: subjects and the atlas they are deformations of; shapes: pairs without any anatomy, from which a "
        "network learns to register whatever it is shown (default: %(default)s)",
    )
    phantom.add_argument(
        "--shape",
        default="48,64,64",
        metavar="X,Y,Z",
        help="grid in voxels, sides of at least 16 (default: %(default)s)",
    )
    phantom.add_argument(
        "--subjects", type=int, default=4, metavar="N", help="number of scans, or of pairs (default: %(default)s)"
    )
    phantom.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed makes the same files (default: %(default)s)"
    )
    phantom.set_defaults(run=_phantom)

    profiles = commands.add_parser(
        "profiles",
        help="acceptance profiles: list them, show one, list the figures they may limit",
        description="Profiles say what a precision report must keep; om_runner takes one with --profile. Nothing is "
        "written.",
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
        "name", nargs="?", default=None, metavar="NAME|FILE", help="the profile of show (default: research)"
    )
    profiles.set_defaults(run=_profiles)

    sim = commands.add_parser(
        "sim",
        help="use the simulated atc and acl from a shell",
        description="Lets programs of your own find the simulated atc and acl.",
    )
    actions = sim.add_subparsers(dest="action", metavar="ACTION")
    actions.required = True
    env = actions.add_parser("env", help='prints export lines; use as: eval "$(python -m vxm_convert sim env)"')
    env.set_defaults(run=_sim_env)
    for command in (doctor, inspect, verify, phantom, profiles, env):
        add_common_group(command)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of `python -m vxm_convert`."""
    args = build_parser().parse_args(argv)
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


def _inspect(args: argparse.Namespace) -> int:
    from vxm_convert.inspection.inspect import describe_file, inspect_file

    if args.json:
        print(json.dumps({"file": str(args.file), **inspect_file(args.file).to_dict()}, indent=2, sort_keys=True))
    else:
        print("\n".join(describe_file(args.file, args.ops)))
    return EXIT_OK


def _verify(args: argparse.Namespace) -> int:
    from vxm_convert.inspection.verify import BROKEN, UNPROVEN, first_broken, folders_without_list, verify_folders

    links = verify_folders(args.folders)
    for link in links:
        if not args.quiet or link.state in (BROKEN, UNPROVEN):
            print(f"{link.state:8s} {link.step:13s} {link.subject}: {link.text}")
    for folder in folders_without_list(args.folders):
        print(f"note: {folder}: no SHA256SUMS there, so only files with a side-car or a recorded sha256 are proven")
    broken = [link for link in links if link.state == BROKEN]
    print(f"{len(links)} links, {len(broken)} broken")
    for link in broken:
        sys.stderr.write(f"vxm_convert: error: {link.subject}: {link.text}\n")
    first = first_broken(links)
    if first is None:
        return EXIT_OK
    print(f"first broken link: {first.step}: {first.subject}: {first.text}")
    return EXIT_USER


def _phantom(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from vxm_convert.synthetic.heads import ATLAS_FILE, SCANS_FOLDER, PhantomSettings, write_cohort
    from vxm_convert.synthetic.shapes import write_pairs

    settings = PhantomSettings(parse_shape(args.shape), args.subjects, args.seed)

    def progress(numbers: Iterable[int]) -> Iterable[int]:
        return tqdm(numbers, unit="scan", disable=True if args.quiet else None)

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

    VXM_TOOLCHAIN=sim goes with them, so that the stand-in on PATH is never taken for CANN.
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

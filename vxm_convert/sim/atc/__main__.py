# SPDX-License-Identifier: Apache-2.0
"""``python -m vxm_convert.sim.atc``: prints, exits and writes as ATC does, and says that it is simulated."""

from __future__ import annotations

import os
import shlex
import sys
import time
from typing import List, Optional

from vxm_convert.errors import VxmError
from vxm_convert.sim.atc.flags import UsageError, check_values, parse_arguments, usage
from vxm_convert.sim.atc.modes import run_mode
from vxm_convert.sim.refusal import TITLES, AtcRefusal
from vxm_convert.sim.version import SIM_VERSION

START = "ATC start working now, please wait for a moment."
SUCCESS = "ATC run success, welcome to the next use."
FAILURE = "ATC run failed, Please check the detail log, Try 'atc --help' for more information"
EXIT_FAILURE = 255


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command line; returns 0 or 255."""
    arguments = sys.argv[1:] if argv is None else argv
    _say(START)
    _say(
        f"SIMULATED toolchain: {SIM_VERSION} of vxm_convert takes the place of ATC; the result contains no device code"
    )
    try:
        given = parse_arguments(arguments)
    except UsageError as exc:
        sys.stderr.write(f"{exc}\n")
        return _fail(None)
    if "help" in given:
        _say(usage())
        return 0
    try:
        run_mode(check_values(given), "atc " + " ".join(shlex.quote(word) for word in arguments), _say)
    except AtcRefusal as exc:
        return _fail(exc)
    except VxmError as exc:
        return _fail(AtcRefusal("E13005", str(exc)))
    except OSError as exc:
        return _fail(AtcRefusal("E19999", f"{exc.filename or 'a file'}: {exc.strerror}"))
    _say("...")
    _say(SUCCESS)
    return 0


def _fail(refusal: Optional[AtcRefusal]) -> int:
    _say("...")
    _say(FAILURE)
    if refusal is not None:
        stamp = time.strftime("%Y-%m-%d-%H:%M:%S")
        _say(f"[PID: {os.getpid()}] {stamp} {TITLES.get(refusal.code, 'Refused')}({refusal.code}): {refusal.message}")
        if refusal.cause:
            _say(f"        Possible Cause: {refusal.cause}")
        if refusal.solution:
            _say(f"        Solution: {refusal.solution}")
        _say("        TraceBack (most recent call last):")
        _say(f"        {refusal.message}")
    return EXIT_FAILURE


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""The driver's libraries: where they are, and whether the stubs of CANN must take their place. Reads files only.

As CANN's current `set_env.sh` does it (runtime package): three folders of the driver, and the stubs in `devlib` only where
no `libascend_hal.so` is on the loader's path, below the path of `ascend_install.info`, or in a folder of the system.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, List, Mapping

from vxm_convert.toolchain.cann_versions import read_text

_HAL = "libascend_hal.so"
_FOLDERS = ("driver/lib64", "driver/lib64/common", "driver/lib64/driver")
_DEFAULT_HOME = "usr/local/Ascend"
#: what a loader searches without being asked, besides /etc/ld.so.conf.d
_SYSTEM = ("lib64", "usr/lib64", "usr/lib", "usr/local/lib", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu")
_STATED = re.compile(r"^Driver_Install_Path_Param=(\S+)", re.MULTILINE)


def install_paths(system: Path = Path("/")) -> List[Path]:
    """Folders above ``driver``: the one that `ascend_install.info` states, then the usual one."""
    stated = _STATED.search(read_text(system / "etc/ascend_install.info"))
    homes = [stated.group(1).lstrip("/")] if stated else []
    return [system / home for home in dict.fromkeys(homes + [_DEFAULT_HOME])]


def driver_libraries(environ: Mapping[str, str], system: Path = Path("/")) -> Dict[str, List[str]]:
    """Folders for LD_LIBRARY_PATH.

    Returns
    -------
    dict — ``driver``: existing folders of the driver; ``hal``: those in which its interface library lies, of all that a
        loader would search. Empty ``hal`` means that the stubs are needed.
    """
    homes = install_paths(system)
    mine = [str(home / folder) for home in homes for folder in _FOLDERS if os.path.isdir(str(home / folder))]
    searched = [path for path in environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path]
    searched += mine + [str(system / folder) for folder in _SYSTEM] + _configured(system)
    hal = [folder for folder in dict.fromkeys(searched) if os.path.exists(os.path.join(folder, _HAL))]
    # The stubs of CANN itself are no driver.
    return {"driver": mine, "hal": [folder for folder in hal if "devlib" not in Path(folder).parts]}


def _configured(system: Path) -> List[str]:
    """Folders in /etc/ld.so.conf.d, which ldconfig gives to the loader."""
    folders: List[str] = []
    try:
        files = sorted((system / "etc/ld.so.conf.d").glob("*.conf"))
    except OSError:
        files = []
    for path in files:
        lines = [line.partition("#")[0].strip() for line in read_text(path).splitlines()]
        folders += [str(system / line.lstrip("/")) for line in lines if line.startswith("/")]
    return folders

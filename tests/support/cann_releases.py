# SPDX-License-Identifier: Apache-2.0
"""Installations of CANN as empty files, laid out as the releases lay themselves out."""

from __future__ import annotations

import platform
from pathlib import Path

ARCH = platform.machine() + "-linux"


def put_atc(path: Path, text: str = "#!/bin/sh\nexit 0\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


#: release → (root below ~/Ascend, files that make it up, atc, folder of pyACL, version); as the releases lay themselves
#: out
RELEASES = {
    "20.0": (
        "ascend-toolkit/20.0.RC1/{arch}_gcc7.3.0",
        {
            "atc/bin/atc": "",
            "pyACL/python/site-packages/acl/acl.so": "",
            "opp/version.info": "Version=1.72.4.1.0\n",
            "atc/lib64/": "",
            "atc/python/site-packages/te/": "",
            "atc/python/site-packages/auto_tune.egg/auto_tune/": "",
            "atc/ccec_compiler/bin/": "",
        },
        "atc/bin/atc",
        "pyACL/python/site-packages/acl",
        "20.0.RC1",
    ),
    "20.2": (
        "ascend-toolkit/20.2.rc1",
        {
            "atc/bin/atc": "",
            "fwkacllib/lib64/": "",
            "pyACL/python/site-packages/acl/acl.so": "",
            "atc/version.info": "Version=1.75.22.0.220\n",
        },
        "atc/bin/atc",
        "pyACL/python/site-packages/acl",
        "20.2.rc1",
    ),
    "5.0.4": (
        "ascend-toolkit/latest",
        {
            "atc/bin/atc": "",
            "pyACL/python/site-packages/acl/acl.so": "",
            "{arch}/ascend_toolkit_install.info": "version=5.0.4\n",
            "atc/lib64/": "",
            "opp/op_impl/built-in/ai_core/tbe/": "",
        },
        "atc/bin/atc",
        "pyACL/python/site-packages/acl",
        "5.0.4",
    ),
    "6.0": (
        "ascend-toolkit/latest",
        {
            "compiler/bin/atc": "",
            "python/site-packages/acl/__init__.py": "",
            "compiler/version.info": "Version=1.84\nversion_dir=6.0.RC1\n",
            "compiler/lib64/": "",
            "opp/built-in/op_impl/ai_core/tbe/": "",
        },
        "compiler/bin/atc",
        "python/site-packages",
        "6.0.RC1",
    ),
    "8.1": (
        "ascend-toolkit/8.1.RC1",
        {
            "bin/atc": "",
            "python/site-packages/acl.cpython-39-x86_64-linux-gnu.so": "",
            "lib64/": "",
            "{arch}/devlib/": "",
            "version.cfg": "# version: 1.0\ntoolkit_running_version=[7.7.0.1.238:8.1.RC1]\n",
        },
        "bin/atc",
        "python/site-packages",
        "8.1.RC1",
    ),
    "8.5": (
        "cann",
        {
            "{arch}/bin/atc": "",
            "python/site-packages/acl/__init__.py": "",
            "lib64/": "",
            "share/info/compiler/version.info": "version_dir=8.5.0\nVersion=8.5.0\n",
        },
        "{arch}/bin/atc",
        "python/site-packages",
        "8.5.0",
    ),
    "9.0": (
        "cann-9.0.0-beta.1",
        {"bin/atc": "", "python/site-packages/acl/__init__.py": ""},
        "bin/atc",
        "python/site-packages",
        "9.0.0-beta.1",
    ),
    "runtime only": (
        "nnrt/5.1.RC2",
        {
            "pyACL/python/site-packages/acl/acl.so": "",
            "ascend_nnrt_install.info": "package_name=Ascend-cann-nnrt\nversion=5.1.RC2\n",
        },
        None,
        "pyACL/python/site-packages/acl",
        "5.1.RC2",
    ),
}


def build_release(home, name):
    place, files, atc, acl, version = RELEASES[name]
    root = home / "Ascend" / place.format(arch=ARCH)
    for file, text in files.items():
        path = root / file.format(arch=ARCH)
        if file.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        elif file.endswith("/atc"):
            put_atc(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return root, atc and str(root / atc.format(arch=ARCH)), str(root / acl), version

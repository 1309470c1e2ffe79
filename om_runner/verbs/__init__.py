# SPDX-License-Identifier: Apache-2.0
"""The verbs of ``python -m om_runner`` that work on finished registrations: one module each, with ``main(argv) -> int``."""

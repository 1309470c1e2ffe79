# SPDX-License-Identifier: Apache-2.0
"""Registration for Python programs: a loaded model as an object, scans in, results out; parses no command line."""

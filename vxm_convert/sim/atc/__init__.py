# SPDX-License-Identifier: Apache-2.0
"""The simulated ATC's command line: flags, order of checks, modes, reports and side files; compiling is in
`compiler`.
"""

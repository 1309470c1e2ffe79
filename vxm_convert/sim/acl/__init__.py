# SPDX-License-Identifier: Apache-2.0
"""The simulated `acl` module: the call surface of pyACL over a device on this CPU; `module` is what programs import."""

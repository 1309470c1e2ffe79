# SPDX-License-Identifier: Apache-2.0
"""What every stage agrees on about a network: spec, contract, precision plan, names of variables."""

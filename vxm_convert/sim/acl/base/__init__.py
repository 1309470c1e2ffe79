# SPDX-License-Identifier: Apache-2.0
"""What every simulated call needs: the process state, argument checks, and host utilities."""

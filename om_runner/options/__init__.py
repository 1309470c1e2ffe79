# SPDX-License-Identifier: Apache-2.0
"""Options that several commands of the runner share."""

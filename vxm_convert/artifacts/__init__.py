# SPDX-License-Identifier: Apache-2.0
"""Files that the stages exchange: hashes, atomic writing, side-cars, tables, manifests and their names."""

# SPDX-License-Identifier: Apache-2.0
"""A run over several devices and machines: Dask distributed carries scans to workers, one per device."""

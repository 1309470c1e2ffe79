# SPDX-License-Identifier: Apache-2.0
"""Whether a model gives the same bits over runs, orders, batches and loads; it does not judge accuracy."""

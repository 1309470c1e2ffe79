# SPDX-License-Identifier: Apache-2.0
"""The error of every layer of the offline model against TensorFlow; nothing here registers a cohort."""

# SPDX-License-Identifier: Apache-2.0
"""The ladder of a device's first hour: small graphs compiled, run and compared with NumPy, TensorFlow and the simulator."""

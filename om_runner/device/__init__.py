# SPDX-License-Identifier: Apache-2.0
"""The offline model on its device through ACL: loading, buffers, execution; nothing here handles scans or result files."""

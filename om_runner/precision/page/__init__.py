# SPDX-License-Identifier: Apache-2.0
"""The precision report as a web page; it computes no figures."""

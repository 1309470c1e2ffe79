# SPDX-License-Identifier: Apache-2.0
"""The precision report as a page for people; it computes no figures of its own."""

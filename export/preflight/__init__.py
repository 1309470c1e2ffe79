# SPDX-License-Identifier: Apache-2.0
"""What ATC would stumble over in a frozen graph, found before it runs; needs neither TensorFlow nor CANN."""

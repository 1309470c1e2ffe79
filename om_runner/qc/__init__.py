# SPDX-License-Identifier: Apache-2.0
"""Pictures that show whether a registration worked, one folder per subject, and the page that lists a cohort, worst first.

`case` is what the pictures are made of; `running` gets it from a run, `existing` from the files of an earlier one. `views` cuts slices,
`ink` and `draw` paint them, `figures` measures and warns, `record` keeps what the pages need. `pages` and `subject` write them.
"""

"""The error that a user is meant to read."""

from __future__ import annotations

FAILURE = 1
"""Exit code: it could not do what was asked."""

USAGE = 2
"""Exit code: what was asked makes no sense (a bad flag, a bad configuration file)."""


class AutotraceError(Exception):
    """Something the user can act on. The message is one sentence: what failed, why, what to do.

    What others said of it, on several lines, is added as a note (`add_note`), and shown before the sentence.
    `exit_code` is what the command ends with if nothing catches this.
    """

    def __init__(self, message: str, *, exit_code: int = FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code

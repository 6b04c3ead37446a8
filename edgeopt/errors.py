"""The errors a user can meet, and the exit code that each one becomes.

Every error says what is wrong, where, and how to mend it. A gate that fails is data, not an exception.

    EdgeoptError
     ├── ConfigError      2   a file or flag that the user wrote
     ├── PlanError        2   stages, targets and artefact kinds do not fit together
     ├── MissingBackend   3   a toolkit that the plan needs is not installed
     ├── StageError       3   a stage, a tool or a device failed
     ├── StoreError       3   the artefact store cannot be read or written
     └── TrackingError    3   a tracking server does not take what was measured
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit status of every ``edgeopt`` command."""

    #: every gate passed
    OK = 0
    #: at least one gate failed
    GATE_FAILED = 1
    #: the user's files or flags are wrong
    USAGE = 2
    #: a tool, a device or edgeopt itself failed
    TOOL_FAILED = 3
    #: at least one gate could not be decided or was not measured, and none failed
    INCONCLUSIVE = 4
    #: Ctrl-C
    INTERRUPTED = 130


class EdgeoptError(Exception):
    """Base of all errors that are shown to the user without a traceback.

    Args:
        what: What is wrong, in one sentence.
        where: Place as ``file:line:col``, stage name or option; empty if there is none.
        fix: What to do about it; empty if there is nothing to say.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.TOOL_FAILED

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  fix: {self.fix}" if self.fix else text


class ConfigError(EdgeoptError):
    """A recipe, target, data or weights file, or a flag, is wrong."""

    exit_code = ExitCode.USAGE


class PlanError(EdgeoptError):
    """The recipe and its targets are each valid but do not fit together."""

    exit_code = ExitCode.USAGE


class MissingBackend(EdgeoptError):
    """A toolkit that the plan needs is not installed here."""


class StageError(EdgeoptError):
    """A stage, a tool or a device failed while working."""


class StoreError(EdgeoptError):
    """The artefact store cannot be read, written or trusted."""


class TrackingError(EdgeoptError):
    """A tracking server cannot be reached, or refuses what it is sent. The results are complete in their folder."""

"""Errors say what, where and how to mend; exit codes are those that the documentation promises."""

from __future__ import annotations

import pytest

from edgeopt import errors
from edgeopt.errors import ConfigError, EdgeoptError, ExitCode


@pytest.mark.parametrize(
    ("where", "fix", "text"),
    [
        ("", "", "it broke"),
        ("a.yaml:3:7", "", "a.yaml:3:7: it broke"),
        ("", "mend it", "it broke\n  fix: mend it"),
        ("a.yaml:3:7", "mend it", "a.yaml:3:7: it broke\n  fix: mend it"),
    ],
)
def test_message_has_place_then_fault_then_remedy(where, fix, text):
    error = ConfigError("it broke", where=where, fix=fix)
    assert str(error) == text
    assert (error.what, error.where, error.fix) == ("it broke", where, fix)


def test_every_error_is_for_the_user_and_has_its_exit_code():
    codes = {kind.__name__: kind.exit_code for kind in EdgeoptError.__subclasses__()}
    assert codes == {
        "ConfigError": ExitCode.USAGE,
        "PlanError": ExitCode.USAGE,
        "MissingBackend": ExitCode.TOOL_FAILED,
        "StageError": ExitCode.TOOL_FAILED,
        "StoreError": ExitCode.TOOL_FAILED,
        "TrackingError": ExitCode.TOOL_FAILED,
    }
    assert all(name in str(errors.__doc__) for name in codes)


def test_exit_codes_are_the_documented_numbers():
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "GATE_FAILED": 1,
        "USAGE": 2,
        "TOOL_FAILED": 3,
        "INCONCLUSIVE": 4,
        "INTERRUPTED": 130,
    }

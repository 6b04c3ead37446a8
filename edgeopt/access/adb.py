"""An Android device behind ``adb``: Python and numpy have to be there, as Termux brings them.

This was tested with a program that behaves like ``adb`` on this machine, and not yet with a phone.
"""

from __future__ import annotations

import os

from edgeopt.access.channel import End
from edgeopt.access.remote import Remote, Trouble

#: the only folder that adb's user may write to and run from on every device
_FOLDER = "/data/local/tmp"
#: what adb itself writes, to its standard error, when it does not reach the device
_WORDS = ("error: ", "adb: ")

_TROUBLES = {
    "unauthorized": Trouble("the device has not allowed this computer", "unlock it and accept the computer's key"),
    "offline": Trouble("the device does not answer", "plug it in again, and see `adb devices`", passing=True),
    "not found": Trouble("there is no such device", "see `adb devices` for its serial number", passing=True),
}
_LOST = Trouble("the connection to the device failed", "see `adb devices`; finished steps are kept", passing=True)


class Adb(Remote):
    """See the module.

    Commands run by ``adb shell -T``, which keeps the three streams apart and their bytes as they are (shell protocol 2,
    Android 7 and newer): https://android.googlesource.com/platform/packages/modules/adb/+/HEAD/docs/user/adb.1.md

    Args:
        serial: As ``adb devices`` lists it.
        python: See :class:`Remote`.
        folder: See :class:`Remote`.
    """

    def __init__(self, serial: str, *, python: str = "python3", folder: str | None = None) -> None:
        super().__init__(f"adb {serial}", python, folder or _FOLDER)
        self._serial = serial

    def _argv(self, line: str, *, first: bool) -> list[str]:
        return ["adb", "-s", self._serial, "shell", "-T", "-e", "none", line]

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _trouble(self, end: End) -> Trouble | None:
        written = next((line for line in end.words.splitlines() if line.startswith(_WORDS)), None)
        if written is None:
            return None
        return next((trouble for word, trouble in _TROUBLES.items() if word in written), _LOST)

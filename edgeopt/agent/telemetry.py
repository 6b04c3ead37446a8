"""Keeps onnxruntime, openvino and nncf from writing identifiers or calling home. A biometric product must not.

What the libraries do by default, and the switch that each offers:

* onnxruntime (1DS telemetry in the Linux, macOS and Windows wheels) creates ``~/.cache/Microsoft/DeveloperTools`` with
  a device identifier and an upload queue when the library is loaded. ``ORT_DISABLE_TELEMETRY=1`` in the environment,
  before it is loaded, prevents the identifier, the events and the uploader (``onnxruntime/Privacy.md``).
  ``onnxruntime.disable_telemetry_events()`` comes too late for the first two.
* openvino's ``ovc`` (imported with ``openvino`` and used by ``convert_model``) and nncf report through the
  distribution ``openvino_telemetry``, which writes ``~/intel`` and sends to Google Analytics unless a consent *file*
  says no; there is no environment variable. Both fall back to a stub when that module cannot be imported, which is
  what ``sys.modules[name] = None`` means to Python.
* nncf also honours ``NNCF_CI``, which its child processes inherit.
* mlflow (of edgeopt's tracking, or of the user's own code) asks its makers' server for a configuration when it is
  imported, sends events there and writes an identifier of the installation into the home folder, unless
  ``MLFLOW_DISABLE_TELEMETRY=true`` (https://mlflow.org/docs/latest/community/usage-tracking).
"""

from __future__ import annotations

import os
import sys

_ENVIRONMENT = {"ORT_DISABLE_TELEMETRY": "1", "NNCF_CI": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def silence() -> tuple[str, ...]:
    """Turns off all telemetry of this process. Call it before the first import of a runtime; again is harmless.

    Imports nothing. The environment part is inherited by child processes; the module part is not, so every process
    that loads openvino or nncf calls this itself.

    Returns:
        The names of the toolkits that were already loaded with their telemetry on; empty if it came in time.
    """
    late = [name for name in ("onnxruntime",) if name in sys.modules and os.environ.get("ORT_DISABLE_TELEMETRY") != "1"]
    late += [name for name in ("openvino", "nncf") if name in sys.modules and sys.modules.get("openvino_telemetry")]
    os.environ.update(_ENVIRONMENT)
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # the documented way to block an import
    return tuple(late)

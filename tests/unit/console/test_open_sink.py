from __future__ import annotations

import io
import subprocess
import sys

from edgeopt.console import open_sink
from edgeopt.events import StepCached, StepStarted

STARTED = StepStarted(time=0, step="prune", why="not done before")


def test_a_log_gets_plain_lines():
    stream = io.StringIO()
    with open_sink(stream) as sink:
        sink(STARTED)
    assert stream.getvalue() == "prune: started (not done before)\n"


def test_a_terminal_gets_live_progress(terminal):
    with open_sink(terminal) as sink:
        sink(STARTED)
        sink(StepCached(time=1, step="load"))
    assert "\x1b[?25l" in terminal.getvalue()  # the cursor is hidden while the screen is redrawn
    assert "load: cached" in terminal.getvalue()


def test_a_terminal_that_cannot_redraw_gets_plain_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with open_sink(terminal) as sink:
        sink(STARTED)
    assert terminal.getvalue() == "prune: started (not done before)\n"


def test_importing_the_console_and_the_reports_loads_nothing_heavy():
    code = (
        "import sys, edgeopt.console, edgeopt.report\n"
        "sys.exit(', '.join({'rich', 'matplotlib', 'jinja2', 'torch', 'scipy'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

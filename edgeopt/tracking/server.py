"""An MLflow server, or the SQLite file of one: what may be shown of its address, and sending a run to it."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from edgeopt.agent import telemetry
from edgeopt.errors import ConfigError, MissingBackend, TrackingError
from edgeopt.provenance import tool_version
from edgeopt.tracking.entry import Entry

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SCHEMES = ("http", "https", "sqlite")
_METRICS_AT_ONCE, _TEXTS_AT_ONCE = 500, 100  # MLflow takes at most 1000 and 100 in a request

# https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html
# By default a server that does not answer is given up after minutes.
_QUIET = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
_PATIENCE = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # seconds
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_KNOCK = {_PATIENCE: "4", _RETRIES: "1"}
_SEND = {_PATIENCE: "60", _RETRIES: "2"}


@dataclass(frozen=True)
class Server:
    """Where runs are sent to.

    Attributes:
        address: Without credentials; this is what MLflow gets to know, and what is shown.
        file: Of the database, if there is no server in front of it.
        username, password: Of HTTP basic authentication.
    """

    address: str
    file: Path | None = None
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def send(self, entry: Entry, folder: Path, files: Sequence[Path]) -> str:
        """Send a run with its files, which lie in ``folder``; returns where it can be seen.

        Raises:
            TrackingError: The server cannot be reached, or does not take it.
        """
        telemetry.silence()
        with self._settings(), self._failures(folder):
            from mlflow import MlflowClient

            with _limits(_KNOCK):
                if self.file:
                    _open_database(self.file)
                client = MlflowClient(tracking_uri=self.address)
                experiment = self._experiment(client, entry.experiment)
            with _limits(_SEND):
                if run := _find(client, experiment, entry):
                    _log_files(client, run, folder, files)
                else:
                    run = client.create_run(experiment, start_time=entry.start_ms, run_name=entry.name).info.run_id
                    with _whole_or_failed(client, run):
                        _log(client, run, entry)
                        _log_files(client, run, folder, files)
                        client.set_terminated(run, "FINISHED", entry.end_ms)
        if self.file:
            return f"run {run} of experiment {entry.experiment} in {self.address}"
        return f"{self.address}/#/experiments/{experiment}/runs/{run}"

    def _experiment(self, client: MlflowClient, name: str) -> str:
        """Id of the experiment, which is made if it is not there."""
        from mlflow.exceptions import MlflowException

        # Without a server, MLflow would put artefacts below the current folder.
        location = (self.file.parent / "mlartifacts").as_uri() if self.file else None
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(client.create_experiment(name, artifact_location=location))
            except MlflowException:
                found = client.get_experiment_by_name(name)  # somebody was faster
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise TrackingError(f"its experiment {name} was deleted")
        return str(found.experiment_id)

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        """MLflow silent, and with the credentials of the address."""
        credentials = {"MLFLOW_TRACKING_USERNAME": self.username, "MLFLOW_TRACKING_PASSWORD": self.password}
        before = logging.root.manager.disable
        with _environment(_QUIET | (credentials if self.username else {})), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            try:
                yield
            finally:
                logging.disable(before)

    @contextlib.contextmanager
    def _failures(self, folder: Path) -> Iterator[None]:
        """Everything that MLflow raises becomes one error, which shows no credentials."""
        try:
            yield
        except Exception as error:
            if not _is_foreseen(error):
                raise
            reason = _reason(error).replace(self.password or "\0", "***")
            raise TrackingError(
                f"the run was not tracked: {reason}. Its results are complete in {folder}",
                where=self.address,
                fix=f"when it is mended: edgeopt report {folder} --track URI",
            ) from None


def parse(uri: str) -> Server:
    """The server of a tracking URI, as the user gives it. Talks to nobody.

    Raises:
        ConfigError: It is no URI that edgeopt tracks to. The URI is not shown, for it may hold credentials.
        MissingBackend: MLflow is not installed.
    """
    where = "--track"
    try:
        parts = urlsplit(uri)
        known = parts.scheme in _SCHEMES and uri.isprintable() and " " not in uri and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ConfigError(
            "this is not the URI of an MLflow server",
            where=where,
            fix="give one such as https://mlflow.example.com:5000, or sqlite:///runs.db for a file",
        )
    if parts.query or parts.fragment or "@" in parts.path:
        raise ConfigError(
            "the URI holds more than a server, credentials and a path",
            where=where,
            fix="leave out ? and #, and write @, / and : within credentials as %40, %2F and %3A",
        )
    server = _file(parts) if parts.scheme == "sqlite" else _host(parts)
    if not tool_version("mlflow-skinny"):
        raise MissingBackend("not installed: mlflow", where=where, fix="pip install 'edgeopt[mlflow]'")
    if server.file and not tool_version("alembic"):
        raise MissingBackend("a file needs the whole of mlflow", where=where, fix="pip install mlflow")
    return server


def _file(parts: SplitResult) -> Server:
    path = parts.path.removeprefix("/")
    if parts.netloc or not path or path.startswith(":"):
        fix = "write sqlite:///runs.db, or sqlite:////data/runs.db for an absolute path"
        raise ConfigError("the URI names no SQLite file", where="--track", fix=fix)
    file = Path(path).absolute()
    return Server(f"sqlite:///{file}", file)


def _host(parts: SplitResult) -> Server:
    if not parts.hostname:
        raise ConfigError("the URI names no host", where="--track", fix="write https://mlflow.example.com:5000")
    if (parts.username or parts.password) and not (parts.username and parts.password):
        raise ConfigError(
            "the URI needs a user name and a password, or neither",
            where="--track",
            fix="give a token in the environment variable MLFLOW_TRACKING_TOKEN instead",
        )
    return Server(
        address=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}",
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )


def _open_database(file: Path) -> None:
    """See that the file can be a database: MLflow would try again for minutes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(file, timeout=4)) as database:
        database.execute("BEGIN IMMEDIATE")


def _find(client: MlflowClient, experiment: str, entry: Entry) -> str:
    """Id of the same run, if it was sent before and arrived whole; empty if not."""
    query = f"tags.run_digest = '{entry.digest}' and attributes.status = 'FINISHED'"
    return next((str(run.info.run_id) for run in client.search_runs([experiment], query, max_results=1)), "")


@contextlib.contextmanager
def _whole_or_failed(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Mark the run as failed if sending ends early, even by Ctrl-C."""
    try:
        yield
    except BaseException:
        with _limits(_KNOCK), contextlib.suppress(Exception):
            client.set_terminated(run_id, "FAILED")
        raise


def _log_files(client: MlflowClient, run_id: str, folder: Path, files: Sequence[Path]) -> None:
    for file in files:
        parent = file.parent.relative_to(folder).as_posix()
        client.log_artifact(run_id, str(file), None if parent == "." else parent)


def _log(client: MlflowClient, run_id: str, entry: Entry) -> None:
    from mlflow.entities import Metric, Param, RunTag

    metrics = [Metric(point.name, point.value, entry.end_ms, point.step) for point in entry.metrics]
    params = [Param(name, text) for name, text in entry.params.items()]
    tags = [RunTag(name, text) for name, text in entry.tags.items()]
    for start in range(0, len(metrics), _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_AT_ONCE], synchronous=True)
    for start in range(0, max(len(params), len(tags)), _TEXTS_AT_ONCE):
        part = slice(start, start + _TEXTS_AT_ONCE)
        client.log_batch(run_id, params=params[part], tags=tags[part], synchronous=True)


def _limits(defaults: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:
    """Limits of requests; what the user has set goes first."""
    return _environment({name: os.environ.get(name, default) for name, default in defaults.items()})


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """These environment variables, for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _is_foreseen(error: Exception) -> bool:
    """Whether the server, the network, the disk or what is installed is to blame, and not edgeopt."""
    if isinstance(error, OSError | ImportError | sqlite3.Error | TrackingError):  # requests' errors are OSErrors
        return True
    return type(error).__module__.partition(".")[0] in ("mlflow", "sqlalchemy")


def _reason(error: BaseException) -> str:
    """The first cause in one line: MLflow wraps it several times."""
    first = error
    while inner := first.__cause__ or first.__context__:
        first = inner
    if isinstance(first, TimeoutError):
        return "the server does not answer in time"
    if isinstance(first, OSError) and first.strerror and not first.filename:
        return f"the server cannot be reached: {first.strerror}"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")

"""Where metrics go: `metrics.jsonl` always, and what `config.writers` names.

Trackers of other libraries are guests: where one fails, that is said once, and the training goes on
without it. Which of their runs belongs to a folder stands in `trackers.json`, so that a resumed run
goes on in theirs.
"""

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from sslax import errors
from sslax.data.files.text import write_text
from sslax.training.metrics import read_jsonl

WriterName = Literal["tensorboard", "wandb", "mlflow", "trackio"]

TRACKERS = "trackers.json"
_PROJECT = "sslax"
_PATIENCE = 60.0  # seconds that a tracker has to send the rest, at the end
_PARAMETERS = 100  # of one request to MLflow


class Writer(Protocol):
    """Where metrics are written."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes means over the steps since the last call."""

    def close(self) -> None:
        """Ends the writing."""


class Place(NamedTuple):
    """What a writer knows of the run.

    Attributes:
        workdir: the run's folder.
        start_step: what was written after it will be written again.
        config: the config's values, flat, by dotted name.
    """

    workdir: Path
    start_step: int
    config: Mapping[str, Any]


class Writers:
    """All writers of a run; for the first process alone."""

    def __init__(self, names: Sequence[WriterName], place: Place) -> None:
        """Opens them.

        Raises:
            MissingExtra: what one of them needs is not installed.
        """
        check_installed(names)
        self._writers: list[Writer] = [Lines(place)]
        for name in names:
            opened = TensorBoard(place) if name == "tensorboard" else Guest(name, place)
            self._writers.append(opened)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes one point of each curve, everywhere."""
        for writer in self._writers:
            writer.write(step, values)

    def close(self) -> None:
        """Closes all."""
        for writer in self._writers:
            writer.close()


def check_installed(names: Sequence[WriterName]) -> None:
    """Makes sure that trackers can be imported.

    Raises:
        MissingExtra: one is not installed; the message names its extra.
    """
    for name in names:
        if name in GUESTS:
            errors.require(name)


class Lines:
    """Appends to `metrics.jsonl`."""

    def __init__(self, place: Place) -> None:
        """Opens the file and drops the lines after `start_step`, which a resumed run repeats."""
        path = place.workdir / "metrics.jsonl"
        kept = [line for line in read_jsonl(path) if line["step"] <= place.start_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a")

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes one line."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoard:
    """TensorBoard's event file, written in the thread that asks for it.

    tensorboardX's own writer has a thread, and waits for it forever once a full disk ended it.
    """

    def __init__(self, place: Place) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        folder = place.workdir / "tensorboard"
        folder.mkdir(exist_ok=True)
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._file = EventsWriter(str(folder / "events"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._file.write_event(self._event(step=place.start_step + 1, session_log=start))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes a point of each curve."""
        points = [self._summary.Value(tag=n, simple_value=v) for n, v in values.items()]
        summary = self._summary(value=points)
        self._file.write_event(self._event(step=step, wall_time=time.time(), summary=summary))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Guest:
    """A tracker that may fail: that is said once, and it is left out from then on."""

    def __init__(self, name: WriterName, place: Place) -> None:
        self._name = name
        self._writer: Writer | None = None
        self._try(lambda: setattr(self, "_writer", GUESTS[name](place)))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes where the tracker is still well."""
        if writer := self._writer:
            self._try(lambda: writer.write(step, values))

    def close(self) -> None:
        """Ends the tracker's run; what it cannot send in a minute is not waited for."""
        if writer := self._writer:
            thread = threading.Thread(target=self._try, args=(writer.close,), daemon=True)
            thread.start()
            thread.join(_PATIENCE)
            if thread.is_alive():
                self._say(f"still sends after {_PATIENCE:g} s and is not waited for")

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # whatever another library and its network come up with
            self._writer = None
            first = (str(error).strip() or repr(error)).splitlines()[0]
            self._say(f"failed and is left out; metrics.jsonl has everything: {first}")

    def _say(self, what: str) -> None:
        print(f"\n{self._name} {what}.", file=sys.stderr, flush=True)


class WandB:
    """Weights & Biases: its project is WANDB_PROJECT or sslax, its run has the folder's name."""

    def __init__(self, place: Place) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=place.workdir.name,
            id=_kept(place, "wandb", _new_id),
            resume="allow",
            dir=place.workdir,
            config=dict(place.config),
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs the values."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()


class MLflow:
    """MLflow: its experiment is MLFLOW_EXPERIMENT_NAME or sslax, its server MLFLOW_TRACKING_URI."""

    def __init__(self, place: Place) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric, self._client = Metric, MlflowClient()
        self._id = _kept(place, "mlflow", lambda: self._create(place.workdir.name))
        self._client.update_run(self._id, status="RUNNING")
        params = [Param(name, str(value)) for name, value in place.config.items()]
        for start in range(0, len(params), _PARAMETERS):
            self._client.log_batch(self._id, params=params[start : start + _PARAMETERS])

    def _create(self, name: str) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        return self._client.create_run(number, run_name=name).info.run_id

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs the values."""
        now = int(1000 * time.time())
        points = [self._metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=points)

    def close(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self._id)


class Trackio:
    """Trackio: its project is TRACKIO_PROJECT or sslax, its run has the folder's name and an id."""

    def __init__(self, place: Place) -> None:
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", _PROJECT),
            name=_kept(place, "trackio", lambda: f"{place.workdir.name}-{_new_id()}"),
            resume="allow",
            config=dict(place.config),
            embed=False,
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs the values."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()


GUESTS: dict[str, Callable[[Place], Writer]] = {
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}
"""Trackers of other libraries; each has an extra of its name."""


def _kept(place: Place, tracker: str, make: Callable[[], str]) -> str:
    """What identifies the tracker's run: made once, then read from the run's folder."""
    file = place.workdir / TRACKERS
    ids = json.loads(file.read_text()) if file.exists() else {}
    if tracker not in ids:
        ids[tracker] = make()
        write_text(file, json.dumps(ids, indent=2) + "\n")
    return ids[tracker]


def _new_id() -> str:
    return uuid.uuid4().hex[:8]

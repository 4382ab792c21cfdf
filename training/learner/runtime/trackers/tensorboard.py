"""TensorBoard: event files in the job directory, one for each start of the program. Always on.

TensorBoard's own writer writes whole records when a step ends: a program that is killed loses none, and no thread is
needed. TensorBoard is imported at the first step (0.1 s of CPU time). Its `EventFileWriter` is not used because it
imports TensorFlow, where that is installed.
"""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from training.learner.runtime.trackers import Row, TrackedJob, samples_text, tracker

FILE_VERSION = "brain.Event:2"  # readers then drop the steps that a SessionLog.START says are written again


@tracker(
    "TensorBoard",
    is_configured=lambda environment: True,
    package="tensorboard",
    variables="always",
    waits=False,
)
class EventFiles:
    """Writer of the event file of this start of the program."""

    def __init__(self, job: TrackedJob) -> None:
        self._folder = job.path
        self._first_step = 1
        self._writer: Any = None

    def resume_after(self, step: int) -> None:
        self._first_step = step + 1

    def write_metrics(self, step: int, at: float, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._write(wall_time=at, step=step, summary=summary)

    def write_samples(self, step: int, at: float, rows: Sequence[Row]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [text_value(f"samples/{number}", samples_text(row)) for number, row in enumerate(rows, 1)]
        self._write(wall_time=at, step=step, summary=Summary(value=values))

    def close(self, is_finished: bool) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        if self._writer is None:
            self._open()
        self._writer.write(Event(**fields).SerializeToString())
        self._writer.flush()

    def _open(self) -> None:
        """Open a new file. If there are older ones, let readers drop their steps that come again."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        is_resumed = any(self._folder.glob("events.out.tfevents.*"))
        # Readers take the files in the order of their names, so the time is exact and has a fixed length.
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter((self._folder / name).open("xb"))
        self._writer.write(Event(wall_time=time.time(), file_version=FILE_VERSION).SerializeToString())
        if is_resumed:
            restart = Event(
                wall_time=time.time(), step=self._first_step, session_log=SessionLog(status=SessionLog.START)
            )
            self._writer.write(restart.SerializeToString())


def text_value(tag: str, text: str) -> Any:
    """Return a summary value that TensorBoard shows on its page of texts, as Markdown."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode("utf-8")], tensor_shape=shape)
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)

"""Telemetry of running tasks: newest figures and a rate, in bounded memory; never in the log."""

from __future__ import annotations

from collections import OrderedDict, deque

from actors.port import Progress
from rbcore.messages import WorkProgress

TASKS_MAX = 1024
SAMPLES_PER_TASK = 30
"""The rate is that over the samples kept: with one a second, over half a minute."""


class ProgressBoard:
    """At the bound the task that was silent longest is forgotten."""

    def __init__(self) -> None:
        self._samples: OrderedDict[int, deque[tuple[int, int]]] = OrderedDict()
        self._newest: dict[int, Progress] = {}

    def __len__(self) -> int:
        return len(self._newest)

    def take(self, report: WorkProgress, now_ns: int) -> None:
        samples = self._samples.setdefault(report.task_id, deque(maxlen=SAMPLES_PER_TASK))
        if samples and report.bytes_done < samples[-1][1]:
            samples.clear()  # a new attempt
        samples.append((now_ns, report.bytes_done))
        self._samples.move_to_end(report.task_id)
        seconds = (samples[-1][0] - samples[0][0]) / 1e9
        rate = (samples[-1][1] - samples[0][1]) / seconds if seconds > 0 else 0.0
        self._newest[report.task_id] = Progress(
            task_id=report.task_id,
            bytes_done=report.bytes_done,
            bytes_total=report.bytes_total,
            files_done=report.files_done,
            bytes_per_second=rate,
            updated_ns=now_ns,
        )
        while len(self._samples) > TASKS_MAX:
            forgotten, _ = self._samples.popitem(last=False)
            del self._newest[forgotten]

    def newest(self, task_id: int) -> Progress | None:
        return self._newest.get(task_id)

    def all_newest(self) -> list[Progress]:
        return list(self._newest.values())

    def forget(self, task_id: int) -> None:
        self._samples.pop(task_id, None)
        self._newest.pop(task_id, None)

"""The tasks: one module each, and the table that finds them by the type of `Method.task`."""

from sslax.tasks import depth, flow, representation
from sslax.tasks.base import Subject, Task
from sslax.types import Depth, Flow, Method, Representation

__all__ = ["TASKS", "Subject", "Task", "task_of"]

TASKS: dict[type, Task] = {
    Representation: representation.TASK,
    Depth: depth.TASK,
    Flow: flow.TASK,
}


def task_of(method: Method) -> Task:
    """The task that a method learns."""
    return TASKS[type(method.task)]

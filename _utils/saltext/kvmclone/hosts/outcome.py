"""Define the outcome of a create, and the type of the callback that is told of its stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.errors import (
    KvmCloneError,
)
from saltext.kvmclone.model.clone import Clone

#: Called at every stage that is reached: the stage, the seconds it took, the clone so far.
Watcher = Callable[[str, float, Clone], None]


@dataclass(frozen=True)
class Outcome:
    """
    The outcome of a create.

    :param name: Name of the clone.
    :param stage: The last stage that was reached, ``""`` before the first.
    :param clone: The clone as last seen; None where none was made.
    :param error: What went wrong; None for success.
    """

    name: str
    stage: str
    clone: Clone | None = None
    error: KvmCloneError | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return CLONE, with the error and the stage that was reached if it failed."""
        answer = self.clone.as_dict() if self.clone else {"name": self.name}
        if self.error is not None:
            answer = {**answer, "stage": self.stage, "error": self.error.as_dict()}
        return answer

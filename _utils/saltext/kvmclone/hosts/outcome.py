"""
How a create ended, and who is told of its stages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.errors import (
    KvmCloneError,
)
from saltext.kvmclone.model.clone import Clone

#: Told of every stage that is reached: the stage, the seconds it took, the clone so far.
Watcher = Callable[[str, float, Clone], None]


@dataclass(frozen=True)
class Outcome:
    """
    How a create ended.

    :param stage: The last stage that was reached, ``""`` before the first.
    :param clone: The clone as last seen; None where none was made.
    :param error: What went wrong; None for success.
    """

    name: str
    stage: str
    clone: Clone | None = None
    error: KvmCloneError | None = None

    def as_dict(self) -> dict[str, Any]:
        """CLONE, with the error and the stage reached where it failed."""
        answer = self.clone.as_dict() if self.clone else {"name": self.name}
        if self.error is not None:
            answer = {**answer, "stage": self.stage, "error": self.error.as_dict()}
        return answer

"""
Describe a cloud-init seed, and what a clone's cloud-init goes by.
"""

from __future__ import annotations

from dataclasses import dataclass

#: What the profile may say, beside contents of its own (``OWN``).
NONE, KEEP, OWN = "none", "keep", "own"


#: What a record says where the base had a seed and the clone has none.
OUT = "out"


@dataclass(frozen=True)
class Seed:
    """
    A seed that was found on a disk.

    :param label: Label of its file system; empty for a folder in another one.
    :param partition: Number of the partition that it is; 0 where it is the whole disk.
    :param folder: The folder that it is.
    :param alone: The disk holds nothing else, so the clone can do without it.
    """

    label: str = ""
    partition: int = 0
    folder: str = ""
    alone: bool = True

    @property
    def named(self) -> str:
        """What messages call it."""
        if self.folder:
            return f"in {self.folder}"
        part = f"partition {self.partition}, " if self.partition else ""
        return f"{part}label '{self.label}'"


#: Bytes of the volume; most of it takes no room.
SIZE = 4 * 2**20

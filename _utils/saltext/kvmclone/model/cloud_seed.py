"""
Describe a cloud-init seed, and which seed a clone has.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Words for the seed of a clone: none, the base's, or contents of its own.
NONE, KEEP, OWN = "none", "keep", "own"


#: The word in a record where the base had a seed and the clone has none, and that where firmware or
#: kernel tell cloud-init of its source, so that it is at work in the clone.
OUT, TOLD = "out", "told"


@dataclass(frozen=True)
class Seed:
    """
    A seed that was found on a disk.

    :param label: Label of its file system; empty where it is a folder in another one.
    :param partition: Number of its partition, from 1; 0 where it is the whole disk.
    :param folder: Path of the folder that it is; empty where it is a whole file system.
    :param alone: The disk holds nothing else, so the clone can do without the disk.
    """

    label: str = ""
    partition: int = 0
    folder: str = ""
    alone: bool = True

    @property
    def named(self) -> str:
        """Return what messages call the seed: its folder, or partition and label."""
        if self.folder:
            return f"in {self.folder}"
        part = f"partition {self.partition}, " if self.partition else ""
        return f"{part}label '{self.label}'"


#: Bytes of the seed's volume; most of them are a hole in a sparse file.
SIZE = 4 * 2**20

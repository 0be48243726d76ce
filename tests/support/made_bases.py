"""Bases made of images, and what those are served from."""

from __future__ import annotations

from collections.abc import Callable

from saltext.kvmclone.model.made_base import MadeBase

MIB = 2**20
CANARY = "canary-b4se"

#: Makes a base of a name; keywords are keys of ``base_from``.
Make = Callable[..., MadeBase]

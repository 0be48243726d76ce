"""What a refusal says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from saltext.kvmclone.errors import KvmCloneError
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.hints import AT_HOST, AT_MASTER
from saltext.kvmclone.model.request import Request

#: Changes the record of a clone.
Change = Callable[..., None]

#: The same refusal is read at the master, too, and names its commands.
both = pytest.mark.parametrize("host", [AT_MASTER, AT_HOST], indirect=True)


def refusal(kind: type[KvmCloneError], work: Callable[[], object]) -> str:
    """The hint that a refusal gives; where it is a plan's, the commands are in the message."""
    with pytest.raises(kind) as info:
        work()
    return f"{info.value.message}   {info.value.hint}"


def conflict(host: LocalHost, request: Request, words: str) -> str:
    """The conflict of a plan that says so."""
    (found,) = [one for one in host.plan(request)["conflicts"] if words in one]
    return str(found)

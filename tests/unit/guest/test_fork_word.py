"""The word of a fork is gone from its guest once its minion has answered it."""

from __future__ import annotations

import pytest

from saltext.kvmclone.errors import CommandFailed
from saltext.kvmclone.guest import fork_word
from saltext.kvmclone.guest.fork_identity_script import WORD
from tests.unit.guest.conftest import Guest


def test_it_is_removed_and_need_not_be_there(guest: Guest) -> None:
    path = guest.root / WORD[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("word\n")
    path.chmod(0o400)
    fork_word.forget(guest)
    assert not path.exists()
    fork_word.forget(guest)


def test_one_that_stays_is_told(guest: Guest) -> None:
    (guest.root / WORD[1:]).mkdir(parents=True)
    with pytest.raises(CommandFailed, match=WORD):
        fork_word.forget(guest)

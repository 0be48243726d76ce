"""Records of any content."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from saltext.kvmclone.model.record import (
    STAGES,
    BaseDisk,
    FrozenDisk,
    Minion,
    Owner,
    Record,
    Snapshot,
    Volume,
)
from saltext.kvmclone.model.spares import Claim

UUID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
WORD = st.text(string.printable.strip() + " äß<&\"'", max_size=20).map(str.strip)
SECONDS = st.floats(0, 2e9).map(lambda value: round(value, 3))

RECORDS = st.builds(
    Record,
    uuid=st.just(UUID),
    base=WORD,
    base_uuid=WORD,
    strategy=st.sampled_from(["full", "quick"]),
    profile=WORD,
    stage=st.sampled_from(STAGES),
    request=WORD,
    created=SECONDS,
    expires=SECONDS,
    ip_source=st.sampled_from(["auto", "ip-learning"]),
    identity=st.sampled_from(["", "reset"]),
    address=WORD,
    worker=st.builds(Owner, WORD, WORD, st.integers(0, 2**22), st.integers(0, 2**40), WORD),
    minion=st.builds(Minion, WORD.filter(bool), WORD, WORD, WORD),
    base_disks=st.lists(
        st.builds(BaseDisk, WORD, WORD, st.integers(0, 2**50), SECONDS), max_size=3
    ).map(tuple),
    volumes=st.lists(st.builds(Volume, WORD, WORD, WORD, WORD, label=WORD), max_size=3).map(tuple),
    under_way=WORD,
    spare=WORD,
    claim=st.builds(Claim, WORD, SECONDS).filter(lambda claim: claim.at or claim == Claim()),
    snapshots=st.lists(
        st.builds(
            Snapshot,
            WORD,
            SECONDS,
            WORD,
            WORD,
            st.lists(st.builds(FrozenDisk, WORD, WORD, WORD), max_size=2).map(tuple),
            WORD,
        ),
        max_size=2,
    ).map(tuple),
    tags=st.lists(WORD.filter(bool), max_size=3).map(tuple),
    warnings=st.lists(WORD.filter(bool), max_size=3).map(tuple),
    timings=st.dictionaries(st.sampled_from(STAGES), SECONDS),
)

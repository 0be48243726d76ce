"""A fingerprint is known again, whichever Salt made it."""

from __future__ import annotations

from pathlib import Path

import pytest
import salt.utils.crypt

from saltext.kvmclone.master.keys import generate
from saltext.kvmclone.model import fingerprints
from saltext.kvmclone.model.enrolment import Enrolment

PUBLIC, OTHER = generate(2048).public, generate(2048).public


@pytest.mark.parametrize("hash_type", ["sha256", "sha512", "md5"])
def test_salt_s_own_fingerprint_of_a_key_file_is_made(tmp_path: Path, hash_type: str) -> None:
    path = tmp_path / "web1"
    path.write_text(PUBLIC)
    shown = salt.utils.crypt.pem_finger(path=str(path), sum_type=hash_type)
    assert fingerprints.without_frame(PUBLIC, hash_type) == shown


@pytest.mark.parametrize("hash_type", ["sha256", "sha512", "md5"])
@pytest.mark.parametrize("made", [fingerprints.without_frame, fingerprints.whole])
def test_a_record_of_any_salt_names_its_key_and_no_other(made: object, hash_type: str) -> None:
    finger = made(PUBLIC, hash_type)  # type: ignore[operator]
    assert fingerprints.is_of(finger, PUBLIC)
    assert fingerprints.is_of(finger, PUBLIC.strip())
    assert not fingerprints.is_of(finger, OTHER)
    assert not fingerprints.is_of(finger, "")


@pytest.mark.parametrize("finger", ["", "aa:bb", "second"])
def test_what_is_no_fingerprint_is_of_no_key(finger: str) -> None:
    assert not fingerprints.is_of(finger, PUBLIC)
    assert fingerprints.every(PUBLIC, finger) == (finger,)


def test_another_master_is_told_both() -> None:
    own = fingerprints.without_frame(PUBLIC, "sha512")
    told = Enrolment("web1", public_key_pem=PUBLIC, fingerprint=own).way_to_accept()
    assert own in told
    assert fingerprints.whole(PUBLIC, "sha512") in told

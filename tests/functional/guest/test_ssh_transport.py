"""Whose sshd it is is known before a password is sent."""

from __future__ import annotations

import signal
import subprocess
import threading
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from saltext.kvmclone import errors
from saltext.kvmclone.guest import hostkeys, ssh
from saltext.kvmclone.model.request import Login, Secrets
from tests.support.sshd import PASSWORD, key_text

pytestmark = pytest.mark.slow

pytest.importorskip("paramiko")


def test_the_host_key_seen_at_first_contact_is_recorded(sshd, enter):
    sshd.start()
    with enter() as channel:
        assert channel.host_key in sshd.host_keys
        shown = subprocess.run(
            ["ssh-keygen", "-lf", "-"],
            input=channel.host_key.line,
            text=True,
            capture_output=True,
            check=True,
        ).stdout
        assert channel.host_key.fingerprint in shown


@pytest.mark.parametrize("index", [0, 1, 2], ids=["ed25519", "ecdsa", "rsa"])
def test_an_expected_host_key_of_any_kind_is_asked_for(sshd, enter, index):
    sshd.start()
    with enter(host_keys=[sshd.host_keys[index]]) as channel:
        assert channel.host_key == sshd.host_keys[index]


def test_one_of_several_expected_host_keys_is_asked_for(sshd, enter):
    sshd.start()
    _, ecdsa, rsa_key = sshd.host_keys
    stale = hostkeys.generate()[1].public
    with enter(host_keys=[stale, rsa_key, ecdsa]) as channel:
        assert channel.host_key == ecdsa


def test_another_host_key_is_refused_before_the_password_is_sent(sshd, enter):
    sshd.start()
    with pytest.raises(errors.WrongGuest) as caught:
        enter(host_keys=[key.public for key in hostkeys.generate()])
    assert "ip neigh" in caught.value.hint
    assert "password" not in sshd.log


def test_an_sshd_that_is_just_being_given_its_new_keys_is_waited_for(sshd, enter):
    fresh = hostkeys.generate()
    sshd.start()
    sshd.wait()

    def replace() -> None:
        for key in fresh:
            (sshd.folder / f"host_{key.kind}").write_text(key.private)
        sshd.process.send_signal(signal.SIGHUP)

    later = threading.Timer(1.0, replace)
    later.start()
    with enter(host_keys=[key.public for key in fresh]) as channel:
        assert channel.host_key == fresh[0].public
    later.join()


def test_whoever_is_met_first_is_vetted_before_the_login(sshd, enter):
    sshd.start()
    asked = []

    def refuse(key) -> None:
        asked.append(key)
        raise errors.WrongGuest("it is another")

    with pytest.raises(errors.WrongGuest):
        enter(vet=refuse)
    assert asked[0] in sshd.host_keys
    assert "for kvmclone-test" not in sshd.log, "nobody tried to log in"
    with enter(vet=refuse, host_keys=sshd.host_keys):
        assert len(asked) == 1, "who is known needs no vetting"


def test_a_key_that_opens_the_door_spares_the_password(sshd, enter):
    private, public = key_text(ed25519.Ed25519PrivateKey.generate())
    sshd.authorize(public)
    sshd.start()
    secrets = Secrets(password=PASSWORD, private_key=private)
    with ssh.connect(
        "127.0.0.1", Login("root", sshd.port), secrets, deadline=time.monotonic() + 15
    ) as channel:
        assert channel.auth_method == "key"
    assert "password" not in sshd.log


def test_the_host_keys_that_sshd_uses_are_read_in_the_guest(root, sshd, monkeypatch):
    # `sshd -T` reads the machine's own configuration, so this one is given a voice.
    tool = sshd.folder / "sshd"
    tool.write_text(
        f"#!/bin/sh\nfor k in ed25519 rsa; do echo hostkey {sshd.folder}/host_$k; done\n"
    )
    tool.chmod(0o755)
    told = root.run(f"PATH={sshd.folder}:$PATH\n" + hostkeys._READ, timeout=20)
    used, _, _ = told.output.partition("\n\n")
    assert hostkeys._keys(used) == (sshd.host_keys[0], sshd.host_keys[2])

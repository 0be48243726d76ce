"""What a profile may say of entering the guest, beyond what salt-cloud knows."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ed25519

from saltext.kvmclone.config.catalogue import Catalogue, KeyLocation, Section, build
from saltext.kvmclone.errors import ConfigError, LoginFailed, SecretInArgument
from saltext.kvmclone.guest import login_key
from saltext.kvmclone.model.plain import to_plain
from saltext.kvmclone.model.request import Request, Secrets


def catalogue(**keys) -> Catalogue:
    sections = [
        Section(KeyLocation.PROVIDER, "here", {"driver": "libvirt", "url": "qemu:///system"}, "a"),
        Section(
            KeyLocation.PROFILE, "small", {"provider": "here", "base_domain": "base", **keys}, "b"
        ),
    ]
    return build(sections, fetch={"sdb://store/phrase": "canary"}.__getitem__)


def resolved(**keys) -> tuple[Request, Secrets]:
    return catalogue(**keys).resolve("small", "web1")


@pytest.mark.parametrize("written", ["canary", "sdb://store/phrase"])
def test_a_passphrase_is_a_secret_and_may_come_from_a_store(written):
    request, secrets = resolved(private_key_passphrase=written)
    assert secrets.private_key_passphrase == "canary"
    assert "canary" not in repr(request) + repr(secrets) + str(to_plain(request))
    shown = str(catalogue(private_key_passphrase="canary").describe())
    assert "private_key_passphrase" in shown
    assert "canary" not in shown


def test_a_passphrase_as_an_argument_is_refused_without_repeating_it():
    with pytest.raises(SecretInArgument) as caught:
        catalogue().resolve("small", "web1", {"private_key_passphrase": "canary"})
    assert "canary" not in str(caught.value)


def test_the_ssh_agent_is_asked_only_where_the_profile_says_so():
    assert resolved()[0].login.ssh_agent is False
    assert resolved(ssh_agent=True)[0].login.ssh_agent is True
    assert catalogue().warnings == catalogue(ssh_agent=True).warnings == ()
    with pytest.raises(ConfigError, match="ssh_agent"):
        resolved(ssh_agent="yes please")


def locked(key, passphrase: bytes) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    ).decode()


def test_a_wrong_passphrase_is_told_without_a_guest():
    text = locked(ed25519.Ed25519PrivateKey.generate(), b"canary")
    assert login_key.read(text, "canary")
    for wrong in ("", "other"):
        with pytest.raises(LoginFailed) as caught:
            login_key.read(text, wrong)
        assert "private_key_passphrase" in caught.value.hint
    with pytest.raises(LoginFailed, match="DSA"):
        login_key.read(locked(dsa.generate_private_key(1024), b"canary"), "canary")

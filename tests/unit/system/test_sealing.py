"""Sealed messages open for the one host and the one clone that they were made for."""

from __future__ import annotations

import base64
from functools import cache, partial

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext.kvmclone import errors
from saltext.kvmclone.system import sealing

NAMES = st.text(max_size=40)


@cache
def pair(number: int = 0) -> tuple[str, str]:
    """A key pair as a minion has it: private, public."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


seal = partial(sealing.seal, minion_id="kvm01")
unseal = partial(sealing.unseal, minion_id="kvm01")


@settings(max_examples=50)
@given(data=st.binary(max_size=5000), name=NAMES, minion_id=NAMES)
def test_what_is_sealed_opens_again(data, name, minion_id):
    private, public = pair()
    purpose = sealing.purpose(name, minion_id)
    assert unseal(private, seal(public, data, purpose), purpose) == data


@given(first=st.tuples(NAMES, NAMES), second=st.tuples(NAMES, NAMES))
def test_two_purposes_are_equal_only_for_the_same_clone_and_minion(first, second):
    assert (sealing.purpose(*first) == sealing.purpose(*second)) is (first == second)


def test_more_than_rsa_alone_could_hold():
    private, public = pair()
    data = bytes(range(256)) * 4096
    assert unseal(private, seal(public, data, b"x"), b"x") == data


def test_the_token_is_plain_text_and_shows_nothing():
    token = seal(pair()[1], b"canary secret", b"x")
    assert token.isascii()
    assert b"canary" not in base64.b64decode(token)


def test_the_same_message_is_never_sealed_alike():
    public = pair()[1]
    assert seal(public, b"x", b"y") != seal(public, b"x", b"y")


def test_another_host_cannot_open_it():
    token = seal(pair(0)[1], b"x", b"y")
    with pytest.raises(errors.Unsealable):
        unseal(pair(1)[0], token, b"y")


def test_it_cannot_be_used_for_another_clone():
    private, public = pair()
    token = seal(public, b"x", sealing.purpose("web1", "web1"))
    for other in (("web2", "web1"), ("web1", "web2")):
        with pytest.raises(errors.Unsealable):
            unseal(private, token, sealing.purpose(*other))


@settings(max_examples=60)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_damage_is_noticed(position, bit):
    private, public = pair()
    message = bytearray(base64.b64decode(seal(public, b"secret", b"y")))
    message[int(position * len(message))] ^= 1 << bit
    token = base64.b64encode(message).decode()
    try:
        assert unseal(private, token, b"y") == b"secret"
    except errors.Unsealable:
        pass


@given(
    token=st.one_of(
        st.text(max_size=200),
        st.binary(max_size=200).map(lambda data: base64.b64encode(data).decode()),
    )
)
def test_rubbish_is_refused_in_one_way(token):
    with pytest.raises(errors.Unsealable):
        unseal(pair()[0], token, b"y")


def test_a_message_cut_short_is_refused():
    private, public = pair()
    token = seal(public, b"secret", b"y")
    for end in range(0, len(token), 97):
        with pytest.raises(errors.Unsealable):
            unseal(private, token[:end], b"y")


def test_only_an_rsa_key_can_be_sealed_for():
    public = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for pem in (public.decode(), "no key", ""):
        with pytest.raises(errors.Unsealable):
            seal(pem, b"x", b"y")


def test_a_refusal_never_quotes_a_key():
    private = pair()[0]
    with pytest.raises(errors.Unsealable) as caught:
        unseal(private[:300], seal(pair()[1], b"x", b"y"), b"y")
    assert private.splitlines()[2] not in str(caught.value)


def test_a_minion_whose_own_key_cannot_be_read_names_it(tmp_path):
    with pytest.raises(
        errors.Unsealable, match=f"'{tmp_path}/minion.pem' cannot be read: No such file"
    ):
        sealing.own_key({"pki_dir": str(tmp_path)})

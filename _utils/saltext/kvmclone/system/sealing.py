"""
Seal what only the master knows, so that one host alone can read it.

A random AES-256-GCM key encrypts the data and is itself wrapped with RSA-OAEP-SHA256 for
the host minion's own public key (RSA alone holds 190 bytes). Clone name and minion id are
bound in as associated data, so that a token serves for the one clone it was made for.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from saltext.kvmclone.errors import Unsealable

VERSION = 1

_NONCE_BYTES = 12


def purpose(name: str, minion_id: str) -> bytes:
    """Return what a token is bound to: the clone's name and the minion id, unambiguously joined."""
    return json.dumps([VERSION, name, minion_id]).encode()


def seal(public_pem: str, data: bytes, associated: bytes, minion_id: str) -> str:
    """
    Encrypt data for the holder of a private key.

    :param public_pem: The host minion's public key.
    :param associated: What the token is bound to; the same is needed to open it.
    :param minion_id: The minion whose key that is.
    :raises Unsealable: That is not an RSA public key.
    """
    try:
        public = serialization.load_pem_public_key(public_pem.encode())
    except ValueError as error:
        raise Unsealable(
            f"The public key of the minion '{minion_id}' cannot be read.",
            f"Look at it: salt-key -p {minion_id}",
        ) from error
    if not isinstance(public, rsa.RSAPublicKey):
        raise Unsealable(
            f"The key of the minion '{minion_id}' is not an RSA key, so nothing can be sealed "
            "for it."
        )
    key = AESGCM.generate_key(bit_length=256)
    nonce = os.urandom(_NONCE_BYTES)
    parts = {
        "v": VERSION,
        "key": _text(public.encrypt(key, _oaep())),
        "nonce": _text(nonce),
        "data": _text(AESGCM(key).encrypt(nonce, data, associated)),
    }
    return _text(json.dumps(parts).encode())


def unseal(private_pem: str, token: str, associated: bytes, minion_id: str) -> bytes:
    """
    Decrypt what :func:`seal` made.

    :param private_pem: The host minion's private key.
    :param associated: What the token was bound to.
    :param minion_id: The id of this minion.
    :raises Unsealable: The token is damaged, was made for another host or another clone.
    """
    try:
        # Our own minion's key, which it has used for long; the checks take up to half a second.
        private = serialization.load_pem_private_key(
            private_pem.encode(), password=None, unsafe_skip_rsa_key_validation=True
        )
        parts = json.loads(base64.b64decode(token, validate=True))
        if parts["v"] != VERSION or not isinstance(private, rsa.RSAPrivateKey):
            raise ValueError("version")
        key = private.decrypt(base64.b64decode(parts["key"]), _oaep())
        return AESGCM(key).decrypt(
            base64.b64decode(parts["nonce"]), base64.b64decode(parts["data"]), associated
        )
    except (ValueError, TypeError, KeyError, InvalidTag, binascii.Error) as error:
        raise Unsealable(
            "The sealed message cannot be opened on this host.",
            f"Was this minion's key changed? On the master: salt-key -d {minion_id}   Here: "
            f"systemctl restart salt-minion   On the master: salt-key -a {minion_id}",
        ) from error


def own_key(opts: Mapping[str, Any]) -> str:
    """
    Return this minion's own private key, PEM, which opens what is sealed for this minion.

    :param opts: The minion's configuration.
    :raises Unsealable: It cannot be read.
    """
    path = os.path.join(str(opts["pki_dir"]), "minion.pem")
    try:
        with open(path, encoding="ascii") as source:
            return source.read()
    except OSError as error:
        raise Unsealable(
            f"This minion's own key '{path}' cannot be read: {error.strerror}."
        ) from error


def _oaep() -> padding.OAEP:
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()

"""
Make, accept and remove minion keys on the master.

The runner, the salt-cloud driver and the reactor all use this module. A key is only ever removed
where its fingerprint is ours, and an id that already has another key is refused before anything
is cloned. Salt 3008 keeps keys in a cache that need not be files; 3006 and 3007 keep files in
``pki_dir``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import salt.cache
import salt.key
import salt.utils.crypt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from saltext.kvmclone.errors import KeyConflict
from saltext.kvmclone.model import fingerprints
from saltext.kvmclone.model.enrolment import KeyPair
from saltext.kvmclone.system import files

ACCEPTED, PENDING, DENIED = "minions", "minions_pre", "minions_denied"

#: The bank of the master's own cache that keeps which keys we accepted.
BANK = "kvm_clone/keys"


def generate(bits: int) -> KeyPair:
    """
    Return a new key pair as Salt's minions read it.

    :param bits: Size of the RSA modulus (``keysize``); at least 2048 are used.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=max(2048, bits))
    return KeyPair(
        private=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ).decode(),
        public=key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode(),
    )


class MinionKeys:
    """
    The master's minion keys.

    :param opts: The master's configuration.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self.opts = opts

    def fingerprint(self, public: str) -> str:
        """
        Return the fingerprint of a public key, as this master's ``salt-key -f`` shows it.

        :param public: The key as PEM text.
        """
        hash_type = str(self.opts.get("hash_type", "sha256"))
        if not self.opts.get("keys.cache_driver"):  # before Salt 3008
            return fingerprints.without_frame(public, hash_type)
        finger: str = salt.utils.crypt.pem_finger(key=public.strip().encode(), sum_type=hash_type)
        return finger

    def known(self, minion_id: str) -> dict[str, list[str]]:
        """Return the public keys that the master holds for an id, by state (``minions`` …)."""
        with salt.key.get_key(self.opts) as store:
            found = store.key_str(minion_id)
        return {
            state: [key for value in keys.values() for key in _several(value)]
            for state, keys in found.items()
        }

    def accepted(self, minion_id: str) -> str:
        """Return the accepted public key of an id; empty for none."""
        keys = self.known(minion_id).get(ACCEPTED, [])
        return keys[0] if keys else ""

    def require_free(self, minion_id: str) -> None:
        """
        Refuse a minion id that has a key.

        :raises KeyConflict: The master holds a key for that id in any state.
        """
        held = {state for state, keys in self.known(minion_id).items() if keys}
        if held:
            raise KeyConflict(
                f"The master already has a key for '{minion_id}' ({', '.join(sorted(held))}); "
                "nothing was cloned.",
                f"If that minion is gone: salt-key -d {minion_id}   Otherwise choose another name.",
            )

    def accept(self, minion_id: str, public: str, name: str = "", host: str = "") -> None:
        """
        Accept exactly this public key for the id, before its minion starts.

        :param public: The key as PEM text.
        :param name: Name of the clone, where it is not its minion id.
        :param host: Minion id or url of the host that has the clone.
        :raises KeyConflict: Another key was accepted in the meantime.
        """
        self._require_same(minion_id, public)
        # Remembered first, so that the key can be removed even when its clone is gone.
        note = {"fingerprint": self.fingerprint(public), "name": name or minion_id, "host": host}
        self._memory.store(BANK, minion_id, note)
        # As the minion sends it: salt-key shows the fingerprint of just what is stored.
        if self._stored(minion_id, public.strip()):
            return
        try:  # never over a key that another create accepted first
            self._write(minion_id, public, overwrite=False)
        except FileExistsError:
            self._require_same(minion_id, public)

    def replace(self, minion_id: str, public: str) -> None:
        """
        Restore a key that was accepted before and overwritten since.

        It is not one of ours, and is not remembered as one.

        :param public: The key as PEM text.
        """
        if not self._stored(minion_id, public):
            self._write(minion_id, public, overwrite=True)

    def _stored(self, minion_id: str, public: str) -> bool:
        """
        Accept a key through the cache driver that keeps the master's keys (Salt 3008).

        :return: False where the master keeps plain files; nothing was done.
        """
        driver = self.opts.get("keys.cache_driver")
        if driver:
            store = salt.cache.Cache(self.opts, driver=driver)
            store.store("keys", minion_id, {"pub": public, "state": "accepted"})
        return bool(driver)

    def _write(self, minion_id: str, public: str, overwrite: bool) -> None:
        folder = self.opts["pki_dir"]  # where the master does not take a draft for a key
        path = os.path.join(folder, ACCEPTED, minion_id)
        files.write(path, public, 0o644, overwrite, draft_folder=folder)

    def _require_same(self, minion_id: str, public: str) -> None:
        accepted = self.accepted(minion_id)
        if accepted and self.fingerprint(accepted) != self.fingerprint(public):
            raise KeyConflict(
                f"Another key was accepted for '{minion_id}' in the meantime; it was left alone.",
                f"Look at it: salt-key -f {minion_id}",
            )

    @functools.cached_property
    def _memory(self) -> Any:
        return salt.cache.Cache(self.opts)

    def remembered(self, minion_id: str) -> str:
        """
        Return the fingerprint of the key that we accepted for an id.

        :return: Empty where we accepted none, or removed it since.
        """
        return str((self._memory.fetch(BANK, minion_id) or {}).get("fingerprint", ""))

    def host_of(self, minion_id: str) -> str:
        """Return the host of the clone whose key is :meth:`remembered`; empty for none."""
        return str((self._memory.fetch(BANK, minion_id) or {}).get("host", ""))

    def noted(self) -> dict[str, str]:
        """Return the name of the clone for each id whose key we accepted and did not remove."""
        held = {str(minion_id) for minion_id in self._memory.list(BANK)}
        return {one: (self._memory.fetch(BANK, one) or {}).get("name", one) for one in held}

    def ids_of(self, name: str) -> list[str]:
        """Return the ids whose key we accepted for a clone of that name and did not remove."""
        return sorted(minion_id for minion_id, noted in self.noted().items() if noted == name)

    def holds_ours(self, minion_id: str) -> bool:
        """Return whether the master still accepts just the key that we accepted for an id."""
        remembered, accepted = self.remembered(minion_id), self.accepted(minion_id)
        return bool(remembered and accepted) and fingerprints.is_of(remembered, accepted)

    def remove(self, minion_id: str, fingerprint: str) -> bool:
        """
        Remove the key with this fingerprint, in whatever state; any other key stays.

        :return: Whether one was removed.
        """
        ours = {
            state: key
            for state, keys in self.known(minion_id).items()
            for key in keys
            if fingerprints.is_of(fingerprint, key)
        }
        if not ours:
            return False
        with salt.key.get_key(self.opts) as store:
            store.delete_key(match_dict={state: [minion_id] for state in ours})
        remembered = self.remembered(minion_id)
        if any(fingerprints.is_of(remembered, key) for key in ours.values()):
            self._memory.flush(BANK, minion_id)
        return True

    def take_back(self, minion_id: str, fingerprint: str) -> bool:
        """
        Remove the key of a machine that is gone, and keys that were submitted under its id.

        :param fingerprint: That of the key on its record; empty for a machine that never had one.
        :return: Whether the machine's own key was removed.
        """
        removed = self.remove(minion_id, fingerprint)
        if fingerprint:
            self.settle(minion_id)
        return removed

    def settle(self, minion_id: str) -> None:
        """
        Delete the keys under this id that were not accepted.

        A base's own minion may have submitted its key under the clone's host name before it was
        given the key that counts.
        """
        waiting = {
            state: [minion_id]
            for state, keys in self.known(minion_id).items()
            if keys and state in (PENDING, DENIED)
        }
        if waiting:
            with salt.key.get_key(self.opts) as store:
                store.delete_key(match_dict=waiting)


def _several(value: Any) -> list[str]:
    return list(value) if isinstance(value, (list, tuple)) else [value]

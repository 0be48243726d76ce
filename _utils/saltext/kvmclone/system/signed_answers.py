"""
Ask a question that only one minion can answer, so that no other can in its place.

A job's return is taken from the master's event bus, and there any minion can put an event of
any tag, also ``salt/job/JID/ret/OTHER``; every minion sees every job's number. So the question
carries a random word, sealed to the minion's own public key, and the answer comes back with a
code that only the holder of the private key can make.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.errors import HostUnreachable, Unsealable
from saltext.kvmclone.system import sealing

#: Longest answer that is looked at, in characters.
LONGEST = 4 * 1024 * 1024


class Unproven(HostUnreachable):
    """
    An answer without proof that it comes from the minion that was asked.

    That minion counts as one that did not answer.
    """


def challenge(public_pem: str, minion_id: str, question: str) -> tuple[bytes, str]:
    """
    Return the challenge that goes with a question to a minion.

    :param public_pem: The minion's accepted key.
    :param question: The function that is asked; an answer to another one does not count.
    :return: The random word to keep, and the same sealed for the minion.
    :raises Unsealable: That is not an RSA public key.
    """
    word = os.urandom(32)
    return word, sealing.seal(public_pem, word, _purpose(minion_id, question), minion_id)


def answer(opts: Mapping[str, Any], question: str, token: str | None, said: Any) -> Any:
    """
    Return what a function of this minion answers: plain to a person, with a proof to the master.

    :param opts: The minion's configuration.
    :param question: The function.
    :param token: The sealed challenge that came with the question; None from a person.
    :param said: The plain answer.
    :raises Unsealable: The question was not meant for this minion.
    """
    if token is None:
        return said
    return sign(sealing.own_key(opts), str(opts["id"]), question, token, said)


def sign(
    private_pem: str, minion_id: str, question: str, token: str, answer: Any
) -> dict[str, str]:
    """
    Return an answer of this minion with its proof.

    :param private_pem: This minion's own key.
    :param token: The sealed challenge that came with the question.
    :raises Unsealable: The question was not meant for this minion.
    """
    if not isinstance(token, str):
        raise Unsealable("That is not a challenge.", "Leave it out: it is the master's to give.")
    word = sealing.unseal(private_pem, token, _purpose(minion_id, question), minion_id)
    text = json.dumps(answer)
    return {"sworn": text, "proof": _code(word, text)}


def part_tag(minion_id: str, word: str) -> str:
    """
    Return the tag of the events in which a minion gives a part of its answer.

    :param word: What the master chose for this question, 32 hexadecimal digits; no secret.
    :raises ValueError: That is not such a word.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", word):
        raise ValueError("the parts of the answer have no such tag")
    return f"salt/minion/{minion_id}/kvm_clone/{word}"


def check(word: bytes, minion_id: str, returned: Any) -> Any:
    """
    Return what a minion answered, once it is known that the answer is its own.

    :param word: The random word that :func:`challenge` gave to keep.
    :param returned: The minion's return, as it arrived.
    :raises Unproven: The answer has no valid proof, or cannot be read.
    """
    text, proof = (
        (returned.get("sworn"), returned.get("proof")) if isinstance(returned, dict) else ("", "")
    )
    if not isinstance(text, str) or not isinstance(proof, str) or not proof.isascii():
        text = proof = ""
    if len(text) > LONGEST or not hmac.compare_digest(proof, _code(word, text)):
        raise Unproven(
            f"An answer came in the name of '{minion_id}' that is not proven to be its own.",
            "If its modules are older than the master's: "
            f"salt {minion_id} saltutil.sync_all   Otherwise somebody answered in its place.",
        )
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unproven(f"The answer of '{minion_id}' cannot be read.") from error


def _purpose(minion_id: str, question: str) -> bytes:
    return sealing.purpose(question, minion_id)


def _code(word: bytes, text: str) -> str:
    return hmac.new(word, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

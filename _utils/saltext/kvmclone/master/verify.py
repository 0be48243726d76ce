"""
Ask a new minion whether it is there, and whether it is the machine that we made.

The stage ``ready`` rests on this: the minion that holds *our* key answered ``test.version``, and
its ``uuid`` grain is the domain's uuid.
"""

from __future__ import annotations

import hmac
import logging
import re
import shlex
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import salt.client
import salt.exceptions
import salt.utils.event

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import MinionTimeout, Unverifiable, VerificationFailed
from saltext.kvmclone.guest.fork_identity_script import WORD
from saltext.kvmclone.guest.identity import same_machine
from saltext.kvmclone.master import master_address, other_key
from saltext.kvmclone.master.keys import MinionKeys
from saltext.kvmclone.master.other_key import OtherKey
from saltext.kvmclone.master.silent_minion import SilentMinion
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.record import BY_KEY, BY_UUID, BY_WORD

log = logging.getLogger(__name__)

#: Seconds after which an unanswered question is asked again, at first and at most: the pause
#: doubles each time, since each question is a job in the guest, which may be loaded. A minion that
#: announces itself is asked at once.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 3.0, 30.0

#: Least seconds between two questions, however often something announces itself. A minion hears the
#: master seconds before it announces itself, and in a slow guest each job takes as long: one that
#: was asked a moment before has the question, and a second job would only delay the first.
ASK_INTERVAL_S = 3.0

#: Seconds that an answer may take from the bus to the job cache.
JOB_CACHE_DELAY_S = 5.0

#: Seconds that a minion gets from its start to its answer.
MINION_TIMEOUT_S = 180.0

#: A function, and its arguments, for a job that asks something else as well.
Call = tuple[str, list[Any]]

#: Longest version that is accepted, characters.
LONGEST_VERSION = 60

#: Longest reason of a minion that is quoted, characters.
LONGEST_REASON = 200

#: What a word looks like that a fork is given.
_WORD = re.compile(r"[0-9a-f]{32}")

#: Seconds that a slow minion gets from when it announced itself, or its guest said that nothing is
#: wrong with it; in all at most twice the timeout.
ANNOUNCED_TIMEOUT_S = 90.0


class NeverAsked(MinionTimeout):
    """The master published no question to the minion, so its silence says nothing about it."""

    @property
    def type(self) -> str:
        return MinionTimeout.__name__


@dataclass(frozen=True)
class Verified:
    """
    The answer of a minion that was verified.

    :param version: Its answer to ``test.version``.
    :param by: :data:`.record.BY_UUID` where its grain equals the domain's uuid,
        :data:`.record.BY_WORD` where it answered what the fork was given over its agent, otherwise
        :data:`.record.BY_KEY`: only the key proves which machine it is.
    """

    version: str
    by: str


def verify(
    opts: Mapping[str, Any],
    minion_id: str,
    uuid: str,
    ask: Callable[[], GuestMinion],
    timeout: float = MINION_TIMEOUT_S,
    word: str | None = None,
) -> Verified:
    """
    Ask the minion, again when it announces itself, until it answers, and judge which machine it is.

    :param uuid: The domain's uuid.
    :param ask: Asks the guest of its minion, once that is silent.
    :param timeout: Seconds to wait; one that is only slow gets more, see :class:`RetrySchedule`.
    :param word: What a fork was given over its agent; empty for nothing, None for another clone.
    :raises MinionTimeout: It never answered.
    :raises NeverAsked: Nor was it asked: the master published nothing.
    :raises VerificationFailed: A machine with another uuid, or without the word, answered.
    :raises Unverifiable: The minion may not read the word.
    """
    with (
        salt.client.get_local_client(mopts=opts) as client,
        salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=True) as bus,
    ):
        also = [("file.file_exists", [WORD]), ("file.read", [WORD])] if word else []
        asked: dict[str, str] = {}
        turn = RetrySchedule(time.monotonic(), timeout)
        judge = OtherKey(MinionKeys(opts), minion_id).sentence
        silent = SilentMinion(minion_id, ask, judge, time.monotonic())
        while not turn.is_over(time.monotonic()):
            interrupts.check()
            if silent.look(time.monotonic()):
                turn.is_coming(time.monotonic())
            if turn.take_slot(time.monotonic()):
                jid = _ask(client, minion_id, also)
                asked |= {f"salt/job/{jid}/ret/{minion_id}": jid} if jid else {}
            event = bus.get_event(wait=0.5, full=True, auto_reconnect=True)
            tag = event["tag"] if event else ""
            jid = asked.get(tag, "")
            if jid and (said := _authentic(opts, client, jid, minion_id, event["data"])):
                return _judge(said.get("ret"), minion_id, uuid, word)
            if tag == f"salt/minion/{minion_id}/start":
                turn.announced(time.monotonic())
    if not asked:
        raise NeverAsked(
            f"The minion '{minion_id}' was not asked for test.version within {timeout:g} s: the "
            f"master published no job. {silent.reason}".rstrip(),
            "Does the master run? Here: systemctl start salt-master",
        )
    raise _timeout(opts, minion_id, timeout, silent)


def _timeout(
    opts: Mapping[str, Any], minion_id: str, timeout: float, silent: SilentMinion
) -> MinionTimeout:
    return MinionTimeout(
        f"The minion '{minion_id}' did not answer test.version within {timeout:g} s. "
        f"{silent.reason}".rstrip(),
        other_key.HINT
        if silent.misfit
        else "This master listens on these ports, which the profile and every firewall must know: "
        f"'{master_address.line(opts)}'   In the guest: journalctl -u salt-minion",
    )


class RetrySchedule:
    """
    A schedule: when it is time to ask a minion, and when to stop.

    :param now: Seconds on the clock of every later ``now``.
    :param timeout: Seconds to wait for a minion of which nothing is known.
    """

    def __init__(self, now: float, timeout: float) -> None:
        self._over, self._latest = now + timeout, now + 2 * timeout
        self._next = now
        self._pause = FIRST_PAUSE_S
        self._last = now - ASK_INTERVAL_S

    def take_slot(self, now: float) -> bool:
        """Return True, and start the next pause, if it is time to ask."""
        if now < self._next:
            return False
        self._last, self._next = now, now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        return True

    def announced(self, now: float) -> None:
        """Take note that the minion announced itself, or that somebody did so in its name."""
        self._next = min(self._next, max(now, self._last + ASK_INTERVAL_S))
        self.is_coming(now)

    def is_coming(self, now: float) -> None:
        """Take note that nothing is wrong with the minion but that it is slow."""
        self._over = max(self._over, min(now + ANNOUNCED_TIMEOUT_S, self._latest))

    def is_over(self, now: float) -> bool:
        """Return True if the minion has had its time."""
        return now >= self._over


def run(opts: Mapping[str, Any], minion_id: str, function: str) -> str:
    """
    Call a Salt function on the minion and wait for it (``start_action``).

    :return: Empty when it succeeded, otherwise what to tell the operator.
    """
    with salt.client.get_local_client(mopts=opts) as client:
        try:
            answer = client.cmd(minion_id, function, tgt_type="list", full_return=True, timeout=60)
        except salt.exceptions.SaltClientError as error:
            interrupts.heed(error)
            log.warning("%s on %s: %s", function, minion_id, error)
            answer = {}
    result = answer.get(minion_id) or {}
    if result and result.get("retcode", 1) == 0:
        return ""
    return (
        f"start_action '{function}' failed on '{minion_id}'. "
        f"Repeat it: salt {minion_id} {shlex.quote(function)}"
    )


def start(opts: Mapping[str, Any], minion_id: str, function: str, *arguments: Any) -> None:
    """Have a minion call a function, and do not wait for its answer."""
    with salt.client.get_local_client(mopts=opts) as client:
        try:
            client.cmd_async(minion_id, function, arg=arguments, tgt_type="list")
        except salt.exceptions.SaltClientError as error:
            interrupts.heed(error)
            log.warning("%s on %s: %s", function, minion_id, error)


def silent(opts: Mapping[str, Any], minion_ids: Collection[str], timeout: float) -> set[str]:
    """
    Return which of some minions do not answer ``test.version``, all asked by one job.

    Whether an answer is a minion's own is not looked at.

    :param timeout: Seconds that they have.
    """
    if not minion_ids:
        return set()
    with salt.client.get_local_client(mopts=opts) as client:
        try:
            answers = client.cmd(
                sorted(minion_ids), "test.version", tgt_type="list", timeout=timeout
            )
        except salt.exceptions.SaltClientError as error:  # then nobody was asked
            interrupts.heed(error)
            log.warning("asking %s: %s", ", ".join(sorted(minion_ids)), error)
            return set()
    if not answers:  # once a job is published, Salt names those that are silent, too
        log.warning("asking %s: no job was published", ", ".join(sorted(minion_ids)))
        return set()
    return {one for one in minion_ids if not answers.get(one)}


def _ask(client: Any, minion_id: str, also: Collection[Call] = ()) -> str:
    """
    Publish the question as a job; the answer comes as an event.

    :param also: What is called in the same job.
    :return: The job's number; empty where nothing was published.
    """
    try:
        published = client.run_job(
            minion_id,
            ["test.version", "grains.get", *(function for function, _arguments in also)],
            arg=[[], ["uuid"], *(arguments for _function, arguments in also)],
            tgt_type="list",
            timeout=5,
        )
    except salt.exceptions.SaltClientError as error:
        interrupts.heed(error)
        log.debug("asking %s: %s", minion_id, error)
        return ""
    return str(published.get("jid", "")) if published else ""


def _authentic(
    opts: Mapping[str, Any], client: Any, jid: str, minion_id: str, event: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """
    Return the answer as the master's job cache has it; None where the minion did not send it.

    The master takes an answer into its job cache from the minion of that id alone; on the bus
    anybody may put one. Without a job cache only the event is left.

    :param event: The data of the event.
    """
    if not opts.get("job_cache", True) or opts.get("ext_job_cache"):
        return {"ret": event.get("return")}
    deadline = time.monotonic() + JOB_CACHE_DELAY_S
    while True:
        try:
            kept: dict[str, Any] = client.get_cache_returns(jid)
        except salt.exceptions.SaltClientError as error:  # it is just being written
            interrupts.heed(error)
            log.debug("the job cache of %s: %s", jid, error)
            kept = {}
        if minion_id in kept:
            return dict(kept[minion_id])
        if time.monotonic() >= deadline:
            log.warning("'%s': an answer came in its name that the master did not take.", minion_id)
            return None
        interrupts.pause(0.1)


def _judge(answer: Any, minion_id: str, uuid: str, word: str | None = None) -> Verified:
    version = answer.get("test.version") if isinstance(answer, dict) else None
    # It comes from the guest, so it is untrusted, and it goes onto the clone's record.
    text = version if isinstance(version, str) else ""
    if not text or not text.isprintable() or len(text) > LONGEST_VERSION:
        raise VerificationFailed(
            f"'{minion_id}' answered, but not to test.version.",
            f"Ask it yourself: salt {minion_id} test.version",
        )
    if word is not None:  # its uuid was given over the agent, too, and proves nothing
        return _judge_fork(answer, minion_id, text, word)
    told = answer.get("grains.get")
    same = same_machine(told.strip(), uuid) if isinstance(told, str) else None
    if same is False:
        raise VerificationFailed(
            f"'{minion_id}' answered from the machine {told[:60]}, and the clone is {uuid}.",
            "Another machine holds the clone's key or id. Destroy the clone and find that machine.",
        )
    return Verified(text, BY_UUID if same else BY_KEY)


def _judge_fork(answer: dict[str, Any], minion_id: str, version: str, word: str) -> Verified:
    if not word:
        return Verified(version, BY_KEY)
    there, read = answer.get("file.file_exists"), answer.get("file.read")
    told = read.strip() if isinstance(read, str) else ""
    if hmac.compare_digest(told.encode(), word.encode()):
        return Verified(version, BY_WORD)
    if there is False or _WORD.fullmatch(told):
        raise VerificationFailed(
            f"'{minion_id}' answered from another machine than the fork that was made: it does not "
            "have the word that the fork was given over its guest agent.",
            "Another machine holds the clone's key or id. Destroy the clone and find that machine.",
        )
    # Where a function is disabled, or fails, Salt's answer is a text of its own.
    why = told.splitlines()[-1] if told else ""
    why = why[:LONGEST_REASON] if why.isprintable() else ""
    raise Unverifiable(
        f"'{minion_id}' answered test.version and cannot show that it is the fork that was made: "
        f"it does not read '{WORD}' in its guest. {why}".rstrip(),
        "Its minion must run as root and be allowed file.read and file.file_exists: look at user, "
        "disable_modules and whitelist_modules in its configuration, and at minion_blackout in its "
        "pillar and grains. Otherwise use 'clone_strategy: quick'.",
    )

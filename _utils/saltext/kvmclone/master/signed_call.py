"""
Ask one minion one question by a Salt job, and accept only its own answer.

What arrives on the bus under the job's tag may be anybody's (see :mod:`.signed_answers`), so the
answer that counts is not the first but the first that is proven. Whether a minion still works on
a question is asked the same way: neither a forged nor a lost answer decides that.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import salt.client
import salt.exceptions
import salt.utils.event

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import HostUnreachable, NotAccepted
from saltext.kvmclone.master.keys import MinionKeys
from saltext.kvmclone.system import signed_answers
from saltext.kvmclone.system.signed_answers import Unproven

#: Seconds that a minion may take to answer.
CALL_TIMEOUT_S = 20.0

#: Seconds without an answer after which a minion is asked whether it still works on a long job.
JOB_CHECK_INTERVAL_S = 10.0

#: Seconds that an answer may take to reach the bus after its job ended.
RETURN_DELAY_S = 10.0

#: Seconds that a proven answer may take after an unproven one, which mostly comes from the minion
#: itself because its modules are missing or old.
UNPROVEN_ANSWER_TIMEOUT_S = 6.0

#: The tag of the event that Salt's bus returns in place of a Ctrl-C that it has caught.
SWALLOWED = "salt/event/exit"

#: The minion's function that tells whether a job still runs; for :func:`ask` with ``patient``.
WORKING = "kvm_clone.working"


def ask(
    opts: Mapping[str, Any],
    minion_id: str,
    function: str,
    arguments: Mapping[str, Any],
    patient: bool = False,
) -> Any:
    """
    Call a function on a minion, and return its answer.

    :param opts: The master's configuration.
    :param function: One that hands its answer to :func:`.signed_answers.answer`.
    :param arguments: Its arguments, as plain data.
    :param patient: Wait for as long as the minion says that it still works on it.
    :raises HostUnreachable: It does not answer.
    :raises Unproven: Something answered that need not be that minion.
    """
    with _Caller(opts, minion_id) as caller:
        return caller.ask(caller.question(function, arguments), patient)


def ask_in_parts(
    opts: Mapping[str, Any],
    minion_id: str,
    function: str,
    arguments: Callable[[str], Mapping[str, Any]],
    take: Callable[[Any], bool],
    check: Callable[[], None],
) -> None:
    """
    Call a function on a minion that may answer in parts, and wait as long as it works on it.

    :param arguments: Returns its arguments, once everything is ready to send them; it takes the
        word of :func:`.signed_answers.part_tag`.
    :param take: Takes an answer that is proven, or a part of one; returns whether it was the last.
    :param check: Called again and again while it waits; what it raises ends that.
    :raises HostUnreachable: It does not answer, or stopped before the end.
    :raises Unproven: Something answered that need not be that minion.
    """
    word = secrets.token_hex(16)
    tag = signed_answers.part_tag(minion_id, word)
    with _Caller(opts, minion_id, check) as caller:
        caller.ask(caller.question(function, arguments(word), take, tag), patient=True)


def accepted_key(opts: Mapping[str, Any], minion_id: str) -> str:
    """
    Return the accepted public key of a minion.

    :param opts: The master's configuration.
    :raises NotAccepted: The master has accepted none.
    """
    public = MinionKeys(opts).accepted(minion_id)
    if not public:
        raise NotAccepted(
            f"The master has no accepted key for the minion '{minion_id}'.",
            f"Start it, then: salt-key -a {minion_id}   Or is the name wrong? It comes from "
            "'host:' in the provider, or from an argument.",
        )
    return public


class _Caller:
    """
    Connections to the master's bus, to ask one minion and to hear its answers.

    :param check: Called again and again while it waits; what it raises ends that.
    """

    def __init__(
        self,
        opts: Mapping[str, Any],
        minion_id: str,
        check: Callable[[], None] = interrupts.check,
    ) -> None:
        self.opts, self.minion_id, self.check = opts, minion_id, check
        self._connections = ExitStack()

    def __enter__(self) -> _Caller:
        with ExitStack() as opened:
            opts = self.opts
            self.client = opened.enter_context(salt.client.get_local_client(mopts=opts))
            bus = salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=True)
            self.bus = opened.enter_context(bus)
            self._connections = opened.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._connections.close()

    def question(
        self,
        function: str,
        arguments: Mapping[str, Any],
        take: Callable[[Any], bool] = lambda _answer: True,
        part_tag: str = "",
    ) -> _Question:
        """Publish a job; see :class:`_Question`."""
        return _Question(self, function, arguments, take, part_tag)

    def ask(self, question: _Question, patient: bool) -> Any:
        """Wait for the answer to a question, and return it; see :func:`ask`."""
        question.wait(JOB_CHECK_INTERVAL_S if patient else CALL_TIMEOUT_S)
        doubt: Unproven | None = None
        while patient and not question.answers:
            works = self.question(WORKING, {"jid": question.jid})
            said = works.wait(CALL_TIMEOUT_S, beside=question)  # the answer itself may come first
            doubt = None if said else works.doubt
            if question.answers or not said:
                break
            still_works = bool(said[0])
            question.wait(JOB_CHECK_INTERVAL_S if still_works else RETURN_DELAY_S)
            if not still_works:
                break
        if question.answers:
            return question.answers[0]
        if unproven := question.doubt or doubt:
            raise unproven
        raise HostUnreachable(
            f"The minion '{self.minion_id}' does not answer.",
            "Is it running? On that machine: systemctl start salt-minion   "
            f"Then: salt {self.minion_id} test.ping",
        )


class _Question:
    """
    A published job, and the answers that came for it so far.

    :param take: Takes each answer that is proven; returns whether it is the one that is waited for.
    :param part_tag: Tag of the events with parts of the answer; empty for none.
    """

    def __init__(
        self,
        caller: _Caller,
        function: str,
        arguments: Mapping[str, Any],
        take: Callable[[Any], bool],
        part_tag: str,
    ) -> None:
        self.caller, self.take, self.part_tag = caller, take, part_tag
        self.minion_id = minion_id = caller.minion_id
        #: The proven answer in a list, once it is there; the answer itself may be None.
        self.answers: list[Any] = []
        #: The last answer that was not proven.
        self.doubt: Unproven | None = None
        public = accepted_key(caller.opts, minion_id)
        self.word, token = signed_answers.challenge(public, minion_id, function)
        kwarg = {**arguments, "challenge": token}
        try:
            published = caller.client.run_job(minion_id, function, kwarg=kwarg, tgt_type="list")
        except salt.exceptions.SaltClientError as error:
            interrupts.heed(error)
            raise HostUnreachable(
                f"The job for '{minion_id}' could not be published: {error}",
                "Only root, and the user that the master runs as, may do that. Does the master "
                "run? Here: systemctl start salt-master",
            ) from error
        self.jid = str((published or {}).get("jid", ""))
        if not self.jid:
            raise HostUnreachable(
                f"The master published no job for '{minion_id}'.",
                f"Does it know the minion? Here: salt-key -f {minion_id}",
            )

    def wait(self, seconds: float, beside: _Question | None = None) -> list[Any]:
        """
        Listen for answers until one is proven, or the time is over.

        :param seconds: How long to listen; less after an answer that is not proven.
        :param beside: An earlier question, for whose answer to listen too.
        :return: The answer to this question in a list; an empty list for none.
        """
        both = [self, *([beside] if beside else [])]
        deadline = time.monotonic() + seconds
        while not any(one.answers for one in both) and time.monotonic() < deadline:
            self.caller.check()
            event = self.caller.bus.get_event(wait=0.5, tag="salt/", full=True, auto_reconnect=True)
            # Whatever somebody sends under this tag has data: the time at least.
            if event and event["tag"] == SWALLOWED and not event["data"]:
                raise interrupts.Interrupt
            for one in both if event else ():
                if one.hear(event) and one is self:
                    deadline = min(deadline, time.monotonic() + UNPROVEN_ANSWER_TIMEOUT_S)
        return self.answers

    def hear(self, event: Mapping[str, Any]) -> bool:
        """
        Take an event if it answers this question.

        :return: True if it was the first answer that is not proven.
        """
        is_part = event["tag"] == self.part_tag
        if not is_part and event["tag"] != f"salt/job/{self.jid}/ret/{self.minion_id}":
            return False
        returned = event["data"].get("data" if is_part else "return")
        try:
            answer = signed_answers.check(self.word, self.minion_id, returned)
            if self.take(answer):
                self.answers = [answer]
        except Unproven as error:
            if is_part:  # nobody waits for it: the whole answer comes all the same
                return False
            first = self.doubt is None
            self.doubt = error
            if isinstance(returned, str):
                # Untrusted text: its repr cannot begin a new line in a log.
                error.hint += f" It said: {returned[:300]!r}"
            return first
        return False

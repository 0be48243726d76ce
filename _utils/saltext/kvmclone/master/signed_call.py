"""
Ask one minion one question by a Salt job, and accept only its own answer.

What arrives on the bus under the job's tag may be anybody's (see :mod:`.signed_answers`), so the
answer that counts is not the first but the first that is proven. Whether a minion still works on
a question is asked the same way: neither a forged nor a lost answer decides that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
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
    with (
        salt.client.get_local_client(mopts=opts) as client,
        salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=True) as bus,
    ):
        question = _Question(opts, client, bus, minion_id, function, arguments)
        question.wait(JOB_CHECK_INTERVAL_S if patient else CALL_TIMEOUT_S)
        doubt: Unproven | None = None
        while patient and not question.answers:
            works = _Question(opts, client, bus, minion_id, WORKING, {"jid": question.jid})
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
            f"The minion '{minion_id}' does not answer.",
            "Is it running? On that machine: systemctl start salt-minion   "
            f"Then: salt {minion_id} test.ping",
        )


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


class _Question:
    """A published job, and the answers that came for it so far."""

    def __init__(
        self,
        opts: Mapping[str, Any],
        client: Any,
        bus: Any,
        minion_id: str,
        function: str,
        arguments: Mapping[str, Any],
    ) -> None:
        self.bus, self.minion_id = bus, minion_id
        #: The proven answer in a list, once it is there; the answer itself may be None.
        self.answers: list[Any] = []
        #: The last answer that was not proven.
        self.doubt: Unproven | None = None
        public = accepted_key(opts, minion_id)
        self.word, token = signed_answers.challenge(public, minion_id, function)
        kwarg = {**arguments, "challenge": token}
        try:
            published = client.run_job(minion_id, function, kwarg=kwarg, tgt_type="list")
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
            interrupts.check()
            event = self.bus.get_event(wait=0.5, tag="salt/job/", full=True, auto_reconnect=True)
            if event and event["tag"] == SWALLOWED:
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
        if event["tag"] != f"salt/job/{self.jid}/ret/{self.minion_id}":
            return False
        returned = event["data"].get("return")
        try:
            self.answers = [signed_answers.check(self.word, self.minion_id, returned)]
        except Unproven as error:
            first = self.doubt is None
            self.doubt = error
            if isinstance(returned, str):
                # Untrusted text: its repr cannot begin a new line in a log.
                error.hint += f" It said: {returned[:300]!r}"
            return first
        return False

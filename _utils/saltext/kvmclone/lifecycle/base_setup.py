"""
Wait until the guest of a base to be has installed what it was told to.
"""

from __future__ import annotations

import json
import time

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import ChannelError, CommandFailed, GuestStopped
from saltext.kvmclone.guest import base_setup_script
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.hypervisor.console import Console
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.lifecycle import record_store
from saltext.kvmclone.model.record import Record

#: Seconds between two looks at the guest, and between two looks at whose the machine is.
_POLL_S, _OWNER_POLL_S = 0.5, 5.0

#: Seconds for one question over the agent.
_QUESTION_TIMEOUT_S = 30.0

#: Seconds that our script may be late once cloud-init says that it is done.
_LATE_S = 15.0

#: Lines of the console that an error quotes.
_LINES = 15

#: Separates what two files hold.
_BETWEEN = "--kvm-clone--"


def wait(handle: DomainHandle, record: Record, timeout_s: float) -> tuple[str, ...]:
    """
    Wait until cloud-init is done, and our script with it.

    :param record: The machine's; it is left to whoever takes it over.
    :param timeout_s: Seconds from now.
    :return: What cloud-init complains of, one sentence each.
    :raises CommandFailed: Something could not be installed.
    :raises GuestStopped: The guest stopped, or crashed.
    :raises ChannelError: It reported nothing in time.
    :raises CreateInProgress: The machine is somebody else's by now.
    """
    return _Wait(handle, record, timeout_s).run()


class _Wait:
    """One wait; see :func:`wait`."""

    def __init__(self, handle: DomainHandle, record: Record, timeout_s: float) -> None:
        self.handle, self.record, self.timeout_s = handle, record, timeout_s
        self.channel = AgentChannel(handle.agent)
        self.why = "no guest agent connected"
        #: When cloud-init said that it is done; 0 before.
        self.ended = 0.0

    def run(self) -> tuple[str, ...]:
        deadline = time.monotonic() + self.timeout_s
        look_at = 0.0
        self.console = Console(self.handle)
        try:
            while True:
                interrupts.check()
                if time.monotonic() >= look_at:
                    record_store.current(self.handle, self.record)
                    look_at = time.monotonic() + _OWNER_POLL_S
                self.console.read()
                self._require_alive()
                self._require_no_failure()
                if (told := self._asked()) is not None:
                    return told
                if time.monotonic() > deadline:
                    raise self._never()
                interrupts.pause(_POLL_S)
        finally:
            self.console.close()

    def _require_alive(self) -> None:
        state = self.handle.state()
        if state in ("shutoff", "crashed"):
            raise GuestStopped(
                f"The guest of '{self.handle.name}' stopped ({state}) before it was done."
                + self._shown(),
                "Does the image boot by itself, with this firmware? Try the other one: "
                "firmware=efi or firmware=bios",
            )

    def _require_no_failure(self) -> None:
        """Refuse what the console tells of a failure, also where there is no agent to ask."""
        mark = f"{base_setup_script.CONSOLE_MARK} failed: "
        for line in self.console.lines():
            if mark in line:
                raise self._failure(line.partition(mark)[2])

    def _asked(self) -> tuple[str, ...] | None:
        """Return what cloud-init complains of; None while it is not done, or cannot be asked."""
        if not self.handle.agent_connected():
            return None
        question = (
            f"cat {base_setup_script.RESULT} 2>/dev/null; echo {_BETWEEN}; "
            "cat /run/cloud-init/result.json 2>/dev/null || :"
        )
        try:
            said = self.channel.run(question, timeout=_QUESTION_TIMEOUT_S).output
        except (ChannelError, CommandFailed) as error:  # it may be restarted at this moment
            self.why = error.message.rstrip(".")
            return None
        self.why = "cloud-init is still at work"
        ours, _between, ended = said.partition(_BETWEEN)
        if ours.startswith("failed: "):
            raise self._failure(ours.strip().removeprefix("failed: "))
        if not ended.strip():
            return None
        if ours.strip() == "done":
            return _complaints(ended)
        self.ended = self.ended or time.monotonic()
        if time.monotonic() - self.ended > _LATE_S:
            raise CommandFailed(
                "cloud-init in the guest is done, and did not run what its seed says."
                + self._shown(),
                "Does the image's cloud-init read NoCloud seeds, and has it the module runcmd?",
            )
        return None

    def _failure(self, why: str) -> CommandFailed:
        return CommandFailed(
            f"The guest of '{self.handle.name}' could not install what a base needs: {why[:600]}",
            "Without a network that leads to the packages, bring them: packages=FOLDER on the KVM "
            "host, with qemu-guest-agent and what it depends on.",
        )

    def _never(self) -> ChannelError:
        return ChannelError(
            f"The guest of '{self.handle.name}' did not report within {self.timeout_s:g} s: "
            f"{self.why}.{self._shown()}",
            "Is it a cloud image, with cloud-init in it? Does it boot with the other firmware "
            "(firmware=efi, firmware=bios)? More time: timeout=30m",
        )

    def _shown(self) -> str:
        self.console.read()
        lines = self.console.lines()[-_LINES:]
        return " Its console: " + " | ".join(lines) if lines else " Its console is silent."


def _complaints(result: str) -> tuple[str, ...]:
    try:
        errors = json.loads(result)["v1"]["errors"]
        return tuple(f"cloud-init complains: {str(one)[:200]}" for one in errors[:5])
    except (LookupError, TypeError, ValueError):
        return ()

"""Ask the hosts of a profile what they offer: all at the same time, each once for a batch."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from saltext.kvmclone.errors import HostUnreachable, KvmCloneError, NotAccepted
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master import targets
from saltext.kvmclone.master.reservations import Reservations
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan.placement import Asked

log = logging.getLogger(__name__)

#: Number of hosts that are asked at the same time.
HOSTS_AT_ONCE = 32


class HostOffers:
    """
    What hosts offered during one call of the runner.

    :param opts: The master's configuration.
    :param connect: Returns the host of a minion id and a url.
    :param store: The reservations of all creates.
    :ivar silent: Hosts that do not answer, with what was said of that.
    :ivar unseen: Hosts of which it is not known what they have, with the reason.
    """

    def __init__(
        self,
        opts: Mapping[str, Any],
        connect: Callable[[str, str], KvmHost],
        store: Reservations,
    ) -> None:
        self.opts = opts
        self.connect = connect
        self.store = store
        #: The clones that this call is about.
        self.names: set[str] = set()
        self.silent: dict[str, str] = {}
        self.unseen: dict[str, str] = {}
        #: What each host said, for each sort of clone; what a target expression means.
        self._asked: dict[str, dict[str, Asked]] = {}
        self._meant: dict[str, tuple[str, ...]] = {}
        self._turns: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def hosts_of(self, request: Request) -> tuple[str, ...]:
        """
        Return the minion ids of the hosts that may be chosen.

        :raises ConfigError: The target expression means no minion.
        """
        wish = request.placement
        if wish.expression and wish.expression not in self._meant:
            self._meant[wish.expression] = targets.minions(self.opts, wish.expression)
        return wish.hosts or self._meant[wish.expression]

    def ask(self, request: Request) -> dict[str, Asked]:
        """Return what each host offers, or why it cannot be chosen; each is asked once."""
        hosts = self.hosts_of(request)
        sort = f"{dataclasses.replace(request, name='').digest()} {request.placement.push}"
        with self._lock:
            self.names.add(request.name)
            turn = self._turns.setdefault(sort, threading.Lock())
        with turn:  # whoever needs the same waits for the one who asks
            with self._lock:
                known = dict(self._asked.get(sort, {}))
                silent = {host: self.silent[host] for host in hosts if host in self.silent}
                names = sorted(self.names)
            missing = [host for host in hosts if host not in known and host not in silent]
            if missing:
                # What others have under way counts once, whether a host knows of it yet or not.
                names = sorted({*names, *(row.reserved.name for row in self.store.all())})
                with ThreadPoolExecutor(min(HOSTS_AT_ONCE, len(missing))) as pool:
                    offers = pool.map(lambda host: self._ask_one(host, request, names), missing)
                    news = dict(zip(missing, offers, strict=True))
                known |= news
                with self._lock:  # of the others some may be forgotten by now
                    self._asked[sort] = self._asked.get(sort, {}) | news
        return {host: silent.get(host, known.get(host, "")) for host in hosts}

    def _ask_one(self, host: str, request: Request, names: Sequence[str]) -> Asked:
        try:
            return self.connect(host, request.url).offer(request, names)
        except KvmCloneError as error:
            log.info("the host '%s' cannot be chosen: %s", host, error)
            reason = error.message.rstrip(".")
            if not isinstance(error, NotAccepted):
                with self._lock:
                    self.unseen[host] = reason
            if isinstance(error, HostUnreachable):
                self.give_up(host, reason)
            return reason

    def forget(self, host: str) -> None:
        """Have a host asked again: it has promised more than we know of."""
        with self._lock:
            for sort, known in self._asked.items():
                self._asked[sort] = {key: told for key, told in known.items() if key != host}

    def give_up(self, host: str, reason: str) -> None:
        """Take no other clone of this call to a host that does not answer."""
        with self._lock:
            self.silent[host] = reason

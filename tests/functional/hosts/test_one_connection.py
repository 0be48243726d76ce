"""Every operation on a host goes over one connection to libvirt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import connection
from tests.support.world import CloneOf, World, quick

Operation = Callable[[LocalHost, str, str], Any]

#: What can be asked of a host that has a base and a clone of it, shut off.
OPERATIONS: dict[str, Operation] = {
    "plan": lambda host, base, name: host.plan(quick(f"{name}-2", base)),
    "show": lambda host, _base, name: host.show(name),
    "exists": lambda host, _base, name: host.exists(name),
    "list_clones": lambda host, _base, _name: host.list_clones(),
    "pending_changes": lambda host, _base, name: host.pending_changes(name),
    "unfinished": lambda host, _base, _name: host.unfinished(),
    "tree": lambda host, _base, _name: host.tree(),
    "bases": lambda host, _base, _name: host.bases(),
    "doctor": lambda host, _base, _name: host.doctor(),
    "capacity": lambda host, _base, _name: host.capacity(),
    "daemon": lambda host, _base, _name: host.daemon(),
    "report_domains": lambda host, _base, name: host.report_domains([name], [name]),
    "published": lambda host, _base, _name: host.published(),
    "published_addresses": lambda host, _base, _name: host.published_addresses("", ""),
    "expired": lambda host, _base, _name: host.expired(),
    "adjust": lambda host, base, name: host.adjust(quick(name, base, tags=("a",)), dry=False),
    "stop": lambda host, _base, name: host.power(name, "stop"),
    "destroy": lambda host, _base, name: host.destroy(name),
}


@pytest.fixture
def opened_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], int]:
    """Counts the connections that a piece of work opens."""
    real = connection.libvirt.open

    def count(work: Callable[[], Any]) -> int:
        urls: list[str] = []

        def note(url: str) -> Any:
            urls.append(url)
            return real(url)

        with monkeypatch.context() as patch:
            patch.setattr(connection.libvirt, "open", note)
            work()
        return len(urls)

    return count


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_opens_one_connection(
    host: LocalHost,
    base: str,
    clone_of: CloneOf,
    opened_by: Callable[[Callable[[], Any]], int],
    name: str,
) -> None:
    clone = clone_of(base)
    host.calls = 0
    assert opened_by(lambda: OPERATIONS[name](host, base, clone)) == 1
    assert host.calls > 0


def test_making_a_clone_opens_one_connection(
    world: World, host: LocalHost, base: str, opened_by: Callable[[Callable[[], Any]], int]
) -> None:
    name = world.name()
    assert opened_by(lambda: host.clone(quick(name, base))) == 1
    assert world.exists(name)


@pytest.mark.guest
def test_a_first_start_opens_one_connection(
    host: LocalHost,
    base: str,
    clone_of: CloneOf,
    opened_by: Callable[[Callable[[], Any]], int],
) -> None:
    """It boots, waits for the address and notes what it learned."""
    clone = clone_of(base)
    assert opened_by(lambda: host.power(clone, "start")) == 1
    assert host.show(clone).stage == "addressed"
    assert host.show(clone).address
    assert opened_by(lambda: host.address_of(clone, 20)) == 1
    assert opened_by(lambda: host.power(clone, "off")) == 1
    assert opened_by(lambda: host.boot(clone)) == 1
    assert opened_by(lambda: host.wait_for_address(quick(clone, base))) == 1

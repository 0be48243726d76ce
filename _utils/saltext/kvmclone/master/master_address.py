"""
Name this master as a minion's configuration has to name it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

#: Stands for an address that only people know: a master listens on all of its host's.
UNKNOWN = "ADDRESS"


def line(opts: Mapping[str, Any]) -> str:
    """
    Return the line of a profile that names this master.

    :param opts: The master's configuration.
    """
    ports = f"master_port: {opts['ret_port']}, publish_port: {opts['publish_port']}"
    return f"minion: {{master: {address(opts)}, {ports}}}"


def address(opts: Mapping[str, Any]) -> str:
    """Return the address of this master that guests can reach; :data:`UNKNOWN` for none known."""
    try:
        listens = ipaddress.ip_address(str(opts.get("interface", "")))
    except ValueError:
        return UNKNOWN
    return UNKNOWN if listens.is_unspecified or listens.is_loopback else str(listens)

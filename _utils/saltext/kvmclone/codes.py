"""
libvirt's numbers by name: the errors that somebody branches on, and a domain's states.

Pure, so that rooms that never import libvirt can tell its errors apart.
"""

from __future__ import annotations

#: ``virErrorNumber``.
NO_SUPPORT = 3
INVALID_ARG = 8
OPERATION_FAILED = 9
NO_DOMAIN = 42
NO_STORAGE_POOL = 49
NO_STORAGE_VOL = 50
OPERATION_INVALID = 55
NO_DOMAIN_METADATA = 80
AGENT_UNRESPONSIVE = 86
STORAGE_VOL_EXIST = 90
XML_INVALID_SCHEMA = 92

#: ``virDomainState`` in the words of CONTRACT.md; a guest that is still shutting down runs.
STATES = {
    0: "running",
    1: "running",
    2: "running",
    3: "paused",
    4: "running",
    5: "shutoff",
    6: "crashed",
    7: "pmsuspended",
}

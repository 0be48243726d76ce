"""
Name libvirt's numbers: error codes, flags, event numbers and domain states.

Pure, so that modules that never import libvirt can tell its errors apart.
"""

from __future__ import annotations

#: ``virErrorNumber``.
INTERNAL_ERROR = 1
NO_SUPPORT = 3
INVALID_ARG = 8
OPERATION_FAILED = 9
SYSTEM_ERROR = 38
NO_DOMAIN = 42
NO_NETWORK = 43
NO_STORAGE_POOL = 49
NO_STORAGE_VOL = 50
OPERATION_INVALID = 55
CONFIG_UNSUPPORTED = 67
NO_DOMAIN_SNAPSHOT = 72
NO_DOMAIN_METADATA = 80
AGENT_UNRESPONSIVE = 86
STORAGE_VOL_EXIST = 90
XML_INVALID_SCHEMA = 92

#: ``virErrorDomain``, the part of libvirt that an error comes from: here the RPC client.
FROM_RPC = 7

#: ``virDomainXMLFlags``.
XML_SECURE = 1
XML_INACTIVE = 2

#: ``virConnectListAllDomainsFlags``: those with a managed save image, and those with snapshots.
LIST_SAVED = 256
LIST_WITH_SNAPSHOTS = 4096

#: ``virDomainDefineFlags``.
DEFINE_VALIDATE = 1

#: ``virDomainModificationImpact``.
AFFECT_LIVE = 1
AFFECT_CONFIG = 2

#: ``virDomainVcpuFlags``, ``virDomainMemoryModFlags``, ``virDomainBlockResizeFlags``.
VCPU_MAXIMUM = 4
MEMORY_MAXIMUM = 4
BLOCK_RESIZE_BYTES = 1

#: ``virDomainSnapshotCreateFlags``.
SNAPSHOT_NO_METADATA = 4
SNAPSHOT_DISK_ONLY = 16
SNAPSHOT_REUSE_EXT = 32
SNAPSHOT_QUIESCE = 64
SNAPSHOT_ATOMIC = 128

#: ``virDomainMetadataType``.
METADATA_DESCRIPTION = 0
METADATA_ELEMENT = 2

#: ``virDomainUndefineFlagsValues``: with managed save image, snapshot and checkpoint metadata.
UNDEFINE_WITH_EVERYTHING = 1 | 2 | 16
UNDEFINE_NVRAM = 4
UNDEFINE_KEEP_NVRAM = 8
UNDEFINE_TPM = 32
UNDEFINE_KEEP_TPM = 64

#: ``virDomainInterfaceAddressesSource``, ``virIPAddrType``.
ADDRESSES_FROM_ARP = 2
IPV4 = 0

#: ``virDomainState`` in the words of docs/answers.md; a guest that is still shutting down runs.
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

#: ``virDomainShutoffReason``, why a domain is off.
OFF_SHUTDOWN = 1
OFF_DESTROYED = 2
OFF_CRASHED = 3
OFF_MIGRATED = 4
OFF_SAVED = 5
OFF_FAILED = 6
OFF_FROM_SNAPSHOT = 7

#: The same in words, for the error of a wait whose guest stopped; without those that say nothing.
SHUTOFF_BECAUSE = {
    OFF_SHUTDOWN: "the guest powered off",
    OFF_DESTROYED: "somebody stopped it",
    OFF_CRASHED: "the guest crashed, or its QEMU died",
    OFF_MIGRATED: "it was migrated away",
    OFF_SAVED: "it was saved",
    OFF_FAILED: "it failed to start",
}

#: ``virDomainEventID``; of the lifecycle events (``virDomainEventType``) those of a domain's end.
EVENT_LIFECYCLE = 0
EVENT_AGENT_LIFECYCLE = 18
EVENT_STOPPED = 5
EVENT_SHUTDOWN = 6

#: ``virConnectListAllStoragePoolsFlags``, ``virStoragePoolState``.
POOLS_INACTIVE = 1
POOLS_ACTIVE = 2
POOL_RUNNING = 2

#: ``virNodeGetMemoryStats``: over all NUMA nodes.
MEMORY_OF_ALL_CELLS = -1

#: ``virNetworkUpdateCommand``, ``virNetworkUpdateSection``, ``virNetworkXMLFlags``.
NETWORK_DELETE = 2
NETWORK_ADD_LAST = 3
NETWORK_DHCP_HOST = 4
NETWORK_XML_INACTIVE = 1

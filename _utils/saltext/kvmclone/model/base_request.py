"""
Define the request for one base made from a disk image: the typed result of a ``base_from``.

Pure. What may carry a token or a password, the image's full URL, is in :class:`Origin`, which
travels sealed; the request itself holds the URL as it may be shown and recorded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from saltext.kvmclone.model.plain import to_plain

#: Where Salt comes from: nowhere, or Salt's own repository; otherwise a folder of packages.
NO_SALT, FROM_REPOSITORY = "none", "repository"

#: Schemes of what is downloaded.
_WEB = ("http", "https")

#: Stands for a location that cannot be taken apart, so that nobody knows where its secrets are.
_HIDDEN = "<hidden>"

#: Seconds that the guest gets to install what it is told to and to be done with it.
READY_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Origin:
    """
    Where an image really comes from; it has no readable ``repr``.

    :param image: URL, or absolute path on the KVM host.
    :param checksums: URL of a checksum file; empty for none.
    """

    image: str
    checksums: str = ""

    def __repr__(self) -> str:
        return "Origin()"

    @property
    def is_url(self) -> bool:
        """Return whether the image has to be downloaded."""
        return urlsplit(self.image).scheme in _WEB


@dataclass(frozen=True)
class BaseRequest:
    """
    What is asked for when a base is made from an image.

    :param name: Name of the base to be.
    :param source: URL without user information and query, or path of the image.
    :param digest: ``sha256:HEX`` or ``sha512:HEX`` that the image must have; empty for any.
    :param checksums: URL of the checksum file, as ``source`` is shown; empty for none.
    :param salt: :data:`NO_SALT`, :data:`FROM_REPOSITORY` or a folder on the KVM host.
    :param packages: Folder on the KVM host with packages that are installed; empty for none.
    :param firmware: ``auto | bios | efi``.
    :param domain_type: ``auto | kvm | qemu``.
    :param pool: Storage pool for its disk.
    :param network: libvirt network of its card; ``bridge`` a bridge instead, empty for none.
    :param portgroup: Portgroup of the network; empty for none.
    :param further_cards: How many more cards its profile has, which are left out.
    :param memory: Bytes. ``size`` of its disk likewise, 0 for the image's own.
    :param timeout: Seconds that the guest gets from its start on.
    :param url: libvirt URI, ``host`` the minion id of the KVM host.
    """

    name: str
    source: str
    digest: str = ""
    checksums: str = ""
    salt: str = NO_SALT
    packages: str = ""
    firmware: str = "auto"
    domain_type: str = "auto"
    pool: str = "default"
    network: str = "default"
    bridge: str = ""
    portgroup: str = ""
    further_cards: int = 0
    cpus: int = 2
    memory: int = 2 * 2**30
    size: int = 0
    description: str = ""
    timeout: float = READY_TIMEOUT_S
    validate_xml: bool = True
    url: str = ""
    host: str = ""

    @property
    def minion_id(self) -> str:
        """Return the name: what is sealed for one base does not open for another."""
        return self.name

    def fingerprint(self) -> str:
        """Return a digest of the whole request, to tell a repeated one from another."""
        plain: dict[str, Any] = to_plain(dataclasses.replace(self, host="", url=""))
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def shown(location: str) -> str:
    """
    Return a URL of any kind without user information, query and fragment; a path as it is.

    :param location: URL or path, right or wrong.
    """
    text = location.strip()
    if text.startswith("/"):
        return location
    try:
        parts = urlsplit(text)
        _port = parts.port  # what is no number there may be a part of a password
    except ValueError:
        return _HIDDEN
    if not parts.scheme and "://" not in text:
        return location
    host = parts.netloc.rpartition("@")[2]
    path = parts.path if parts.netloc else parts.path.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, path, "", ""))


def file_name(location: str) -> str:
    """Return the last part of a URL's path, or of a path."""
    parts = urlsplit(location.strip())
    path = parts.path if parts.scheme in _WEB else location
    return path.rstrip("/").rpartition("/")[2]

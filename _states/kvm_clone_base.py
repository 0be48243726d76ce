"""
Declare bases
=============

The part of the state module ``kvm_clone`` about what clones are made
from.

.. code-block:: yaml

    debian12:
      kvm_clone.base:
        - source: https://cloud.debian.org/images/cloud/bookworm/…
        - sha256: https://cloud.debian.org/images/…/SHA512SUMS
        - salt: repository
"""

from __future__ import annotations

import salt.utils.args
from salt.exceptions import CommandExecutionError

__virtualname__ = "kvm_clone"

#: How the error begins that says that this very base is there.
_THERE = "AlreadyExists:"


def __virtual__():
    if "kvm_clone.base_from" not in __salt__:
        return (
            False,
            "The execution module kvm_clone is not loaded here. Ask it why: "
            "salt-call --local sys.list_functions kvm_clone",
        )
    return __virtualname__


def base(name, source, sha256=None, **keys):
    """
    Make sure that a base exists which was made from this image. It is
    never changed: one from another image makes the state fail.

    name
        Name of the base.
    source
        URL of the image, or its path on this host.
    sha256
        Its digest, or the https URL of a checksum file, which is read
        only when the base is made.
    keys
        Whatever ``kvm_clone.base_from`` takes.

    CLI Example:

    .. code-block:: bash

        salt kvm01 state.single kvm_clone.base d12 source=/srv/d12.raw
    """
    keys = salt.utils.args.clean_kwargs(**keys)
    dry = __opts__["test"]
    try:
        made = __salt__["kvm_clone.base_from"](source, name, sha256=sha256, test=dry, **keys)
    except CommandExecutionError as error:
        if str(error).startswith(_THERE):
            return _answer(name, True, f"The base '{name}' exists.")
        return _answer(name, False, str(error))
    shown = {key: made[key] for key in ("name", "host", "source", "digest", "disks")}
    would = "would be" if dry else "was"
    words = " ".join([f"The base '{name}' {would} made.", *made["warnings"]])
    return _answer(name, None if dry else True, words, {"base": {"old": None, "new": shown}})


def _answer(name, result, comment, changes=None):
    return {"name": name, "result": result, "comment": comment, "changes": changes or {}}

"""
Show a person what kvm_clone answered
=====================================

The outputter of ``salt-run kvmclone.…`` and ``salt HOST kvm_clone.…``: tables, one screen for a
clone, a line for what was done. Salt takes it by itself. Where the output is no terminal, or
``--out`` names another, Salt's own outputters show the data as it is.
"""

from __future__ import annotations

import logging
import os
import sys

import salt.output

try:
    import saltext.kvmclone
except ImportError:  # to an outputter, Salt's loader does not show the folder of the library
    _BESIDE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path += [os.path.join(_BESIDE, folder) for folder in ("utils", "_utils")]
    import saltext.kvmclone

if "saltext.kvmclone.display.screen" not in sys.modules:  # else it holds what is to be shown
    saltext.kvmclone.refresh()

from saltext.kvmclone.display import terminal

log = logging.getLogger(__name__)

__virtualname__ = "kvm_clone"


def output(data, **kwargs):
    """
    Return what is printed of an answer.

    CLI Example: ``salt-run kvmclone.list``
    """
    try:
        text = terminal.shown(data, __opts__)
    except Exception:  # the work is done, so its answer is shown in any case
        log.exception("kvm_clone: the answer is shown as it is")
        text = None
    if text is None:
        text = salt.output.out_format(data, "nested", {**__opts__, "output": "nested"}, **kwargs)
    return text

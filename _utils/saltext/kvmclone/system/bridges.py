"""
Tell how long a bridge of this machine holds back what a new card on it sends.
"""

from __future__ import annotations

import os

#: Every network device of this machine has a folder here.
DEVICES = "/sys/class/net"

#: States that a new port goes through before it forwards, each as long as the bridge's delay, by
#: who decides about that: nobody, the kernel, or a program (the kernel then only learns).
_STATES = {0: 0, 1: 2, 2: 1}


def delay(name: str, devices: str = DEVICES) -> float:
    """
    Return the seconds until a bridge forwards what a card sends that was just put on it.

    :return: 0 also for what is no bridge of this machine.
    """
    folder = os.path.join(devices, name, "bridge")
    states = _STATES.get(_number(folder, "stp_state"), 0)
    return states * _number(folder, "forward_delay") / 100  # it counts in hundredths


def _number(folder: str, name: str) -> int:
    try:
        with open(os.path.join(folder, name), encoding="ascii") as source:
            return int(source.read())
    except (OSError, ValueError):
        return 0

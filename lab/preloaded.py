"""
Run Salt's programs in processes that have Salt's modules already.

``python preloaded.py NUMBER [FOLDER]`` takes requests from the socket of that number. To start a
program takes Salt a second of a core, nearly all of it for imports, and each job on a minion
imports kvm_clone's library once more; a run of all tests starts thousands. So the imports are made
once, and each program gets a process that is forked from that: its own arguments, environment,
session and standard streams, and then the program's file from its first line on. Of kvm_clone only
the library in that folder is imported before; Salt loads the entry points themselves as ever.

This file knows no other of the lab, since the environments of other Salt lines run it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import signal
import socket
import sys
from contextlib import suppress

try:
    import setproctitle
except ImportError:  # Salt 3006 does without
    setproctitle = None  # type: ignore[assignment]

#: What Salt's programs import in any case, and what takes long of that which Salt's loader imports.
MODULES = (
    "salt.scripts", "salt.config", "salt.loader", "salt.minion", "salt.runner", "salt.wheel",
    "salt.client", "salt.cli.run", "salt.cli.salt", "salt.cli.call", "salt.cloud", "salt.cloud.cli",
    "salt.pillar", "salt.fileclient", "salt.netapi", "salt.daemons.masterapi", "salt.utils.gitfs",
    "salt.utils.schedule", "salt.utils.cloud", "salt.output", "salt.transport.tcp", "salt.state",
    "salt.transport.zeromq", "salt.channel.client", "salt.key", "jinja2", "yaml", "lxml.etree",
    "paramiko", "requests", "dns.resolver", "pip", "napalm",
)  # fmt: skip

#: A request is one message of at most so many bytes: arguments and environment of a program.
LARGEST_REQUEST = 1 << 17


def preload(library: str = "") -> None:
    """
    Import what there is of :data:`MODULES`; each Salt line lacks some.

    :param library: A folder whose packages of kvm_clone are imported as well; empty for none.
    """
    for name in MODULES:
        with suppress(ImportError):
            importlib.import_module(name)
    if library:
        sys.path.insert(0, library)  # for as long as Salt's loader has it there
        package = importlib.import_module("saltext.kvmclone")
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
        sys.path.remove(library)
    if setproctitle:
        setproctitle.getproctitle()  # it finds its place only while the environment is as it was
    gc.freeze()  # what is here stays, and is shared by all programs


def next_program(requests: socket.socket) -> str:
    """
    Fork a process for each request, and return in that process alone.

    A request comes with four open files: a socket for the answer, and the standard streams. The
    answer is the program's process id, and in a line of its own the exit code.

    :param requests: Whoever closes its other end, ends this process.
    :return: The path of the program that this process has to be.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    while True:
        request, files, _flags, _from = socket.recv_fds(requests, LARGEST_REQUEST, 4)
        if not request:
            raise SystemExit(0)
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    requests.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=files[0]) as caller:
        if pid := os.fork():
            for stream in files[1:]:
                os.close(stream)
            with suppress(OSError):  # the caller has gone
                caller.sendall(b"%d\n" % pid)
                caller.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            os._exit(0)
    return _become(json.loads(request), files[1:])


def _become(request: dict[str, object], streams: list[int]) -> str:
    """Take over what a request says of its program, and return the program's path."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(dict(request["environment"]))  # type: ignore[call-overload]
    random.seed()
    sys.argv = list(request["words"])  # type: ignore[call-overload]
    if setproctitle:
        setproctitle.setproctitle(" ".join(sys.argv))  # by which daemons are found
    return sys.argv[0]


if __name__ == "__main__":
    sys.path[0] = os.path.dirname(sys.executable)  # where the programs are
    preload(*sys.argv[2:])
    program = next_program(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_path(program, run_name="__main__")

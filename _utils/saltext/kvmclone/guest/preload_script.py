"""
Write the Python program and the shell text by which a warmed base has its minion preloaded.

The minion's own service is started with the program as the ``sitecustomize`` of its Python, so
that it imports Salt's modules before the first line of ``salt-minion`` runs, and waits there: it
has read no configuration, and has no id, no key and no connection. The drop-in that did this is
gone again before the memory is saved, so that whatever restarts the service starts it as always.
In a fork a signal tells the process to go on, and it becomes the minion, with the process id, the
arguments and the environment that its service gave it.

The shell text uses the functions of :mod:`.identity_script`, and reports as that does.
"""

from __future__ import annotations

#: In the guest, in memory: the program and, while a process waits, its process id.
FOLDER = "/run/kvm-clone-preload"

#: What the process that waits is called, so that no other of its number is taken for it.
COMM = "kvm-clone-wait"

#: Seconds for which it waits in a fork, where nobody tells it to go on or to end.
MOST_S = 1800

#: Seconds that the imports may take, under emulation on a busy host.
IMPORTS_TIMEOUT_S = 120

#: What a minion imports until its first answer; each Salt line lacks some.
MODULES = (
    "salt.scripts",
    "salt.cli.daemons",
    "salt.minion",
    "salt.crypt",
    "salt.channel.client",
    "salt.transport.zeromq",
    "salt.pillar",
    "salt.fileclient",
    "salt.grains.core",
    "salt.grains.extra",
    "salt.modules.cmdmod",
    "salt.modules.config",
    "salt.modules.file",
    "salt.modules.mine",
    "salt.modules.timezone",
    "salt.renderers.jinja",
    "salt.renderers.yaml",
    "salt.utils.cloud",
    "salt.utils.filebuffer",
    "salt.utils.find",
    "salt.utils.gitfs",
    "salt.utils.locales",
    "salt.utils.pkg.rpm",
    "salt.utils.timed_subprocess",
    "cryptography.hazmat.backends.openssl.backend",
    "encodings.ascii",
    "filecmp",
    "multiprocessing.popen_fork",
    "tornado.platform.asyncio",
)

# First of all the environment is again what the service made it, since what is imported starts
# programs. In a fork, before anything of Salt runs:
# * what the imports have drawn at random is drawn anew; the generators of OpenSSL do that in each
#   process that is forked, as the minion is by its keeper;
# * where a module is another file than the one that was imported, all is started anew;
# * the key that the fork was given is not tested for being made of primes, which takes longer than
#   all else that a minion does until its first answer. Any other key is.
_PROGRAM = r"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
os.environ.pop("PYTHONPATH", None)
sys.path[:] = [path for path in sys.path if path != HERE]
if os.environ.pop("KVM_CLONE_PRELOAD", "") == "try":
    os.write(1, b"kvm-clone: preloads\n")
    os._exit(0)


def customize():
    # The guest's own module comes before all else, as always. What fails in it is no matter.
    own = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize
    except Exception:
        pass
    sys.modules.setdefault("sitecustomize", own)


def preload():
    import gc
    import importlib
    import random

    gc.disable()
    for name in MODULES:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit):
            pass
    gc.enable()
    gc.collect()
    drawn = [one for one in gc.get_objects() if issubclass(type(one), random.Random)]
    gc.freeze()
    return drawn


def state(path):
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def imported():
    known = [getattr(module, "__dict__", {}) for module in list(sys.modules.values())]
    paths = [names.get("__file__") for names in known]
    return {path: state(path) for path in paths if path}


def tell_systemd():
    where = os.environ.get("NOTIFY_SOCKET")
    if where:
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.connect("\0" + where[1:] if where[0] == "@" else where)
            systemd.sendall(b"READY=1")


def call_itself(name):
    with open("/proc/self/comm", "r+") as file:
        before = file.read().strip()
        file.write(name)
    return before


def wait():
    import signal

    waiting = os.path.join(HERE, "waiting")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    name = call_itself(COMM)
    tell_systemd()
    with open(waiting + ".new", "w") as file:
        file.write("%d\n" % os.getpid())
    os.rename(waiting + ".new", waiting)
    told = signal.sigtimedwait({signal.SIGUSR1}, MOST_S)
    os.unlink(waiting)
    if told is None:
        os.system("systemctl --no-block stop salt-minion.service")
        os._exit(0)
    call_itself(name)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


def draw_anew(generators):
    import multiprocessing
    import random
    import ssl

    random.seed()
    for generator in generators:
        generator.seed()
    own = multiprocessing.current_process()
    own.authkey = os.urandom(len(own.authkey))
    ssl.RAND_add(os.urandom(64), 64.0)


def forget():
    import platform
    import time

    platform._uname_cache = None
    time.tzset()


def leave_nothing():
    import shutil

    shutil.rmtree(HERE, ignore_errors=True)


def start_anew():
    leave_nothing()
    with open("/proc/self/cmdline", "rb") as file:
        words = file.read().split(b"\0")[:-1]
    os.execvp(words[0], words)


def trust_own_key():
    from cryptography.hazmat.primitives import serialization

    with open(os.path.join(HERE, "key")) as file:
        path = file.read().strip()
    with open(path, "rb") as file:
        own = file.read()
    load = serialization.load_pem_private_key
    load(own, None, unsafe_skip_rsa_key_validation=True)

    def load_pem_private_key(data, *given, **named):
        if bytes(data) == own:
            named["unsafe_skip_rsa_key_validation"] = True
        return load(data, *given, **named)

    serialization.load_pem_private_key = load_pem_private_key


# What fails before it may go on must not let a minion start.
try:
    customize()
    generators, before = preload(), imported()
    wait()
except BaseException:
    os._exit(70)
try:
    draw_anew(generators)
    forget()
    replaced = any(state(path) != known for path, known in before.items())
except BaseException:
    replaced = True
if replaced:
    start_anew()
try:
    trust_own_key()
except Exception:
    pass  # an older library, or no such key: then it is tested, which takes longer
leave_nothing()
"""


def program() -> str:
    """Return the program, which stands in for the module ``sitecustomize``."""
    settings = f"COMM, MOST_S, MODULES = {COMM!r}, {MOST_S!r}, {MODULES!r}\n"
    return settings + _PROGRAM


#: Shell functions for a guest that may be a fork.
FUNCTIONS = rf"""
R=${{KVM_CLONE_ROOT-}}
# preloaded: whether a preloaded minion waits, as process `pid`
preloaded() {{
    pid= comm=
    if [ ! -e "$R{FOLDER}/waiting" ]; then return 1; fi
    read -r pid <"$R{FOLDER}/waiting"
    if [ -r "$R/proc/$pid/comm" ]; then read -r comm <"$R/proc/$pid/comm"; fi
    [ "$comm" = {COMM} ]
}}

# release KEY: has it become the minion whose private key is in that file
release() {{
    preloaded && printf '%s\n' "$1" >"$R{FOLDER}/key" && kill -USR1 "$pid"
}}

# unload: a guest that does not become a minion, or another one, need not keep it
unload() {{
    if preloaded; then systemctl stop salt-minion.service; fi
}}
"""

# Nothing here may fail the warming: a base whose minion cannot be preloaded is one whose forks
# answer later. First the minion's program is called with `--version`, so that it is known that
# its Python runs ours, before it is started as a service.
_WARMING = rf"""
preload() {{
    folder=$R{FOLDER}
    # Of all drop-ins the last name wins, and the operator's is mostly override.conf.
    drop_in=$R/run/systemd/system/salt-minion.service.d/zzz-kvm-clone-preload.conf
    if ! preload_fits; then skip preload "$why"; return; fi
    preload_start
    said=$?
    rm -rf "$drop_in"
    rmdir "${{drop_in%/*}}" 2>/dev/null
    systemctl daemon-reload
    if [ "$said" = 0 ] && preloaded; then done_ preload; return; fi
    systemctl stop salt-minion.service
    rm -rf "$folder"
    said=$(salt_identity)  # in case that it has become a minion
    case $said in *'failed salt_identity '*) printf '%s\n' "$said" ;; esac
    skip preload "$why"
}}

# preload_fits: whether the service is one that the program can wait in, or `why` not; `command` is
# its command line.
preload_fits() {{
    if ! systemd; then why="the guest has no systemd"; return 1; fi
    why="its salt-minion.service is not a plain one of a single program that root runs"
    loaded= command= path=
    while IFS='=' read -r name value; do
        case $name=$value in
        LoadState=loaded) loaded=1 ;;
        LoadState=*) loaded= ;;
        Type=simple|Type=exec|Type=notify|User=root|WatchdogUSec=0|WatchdogUSec=infinity) ;;
        ExecStart=*'argv[]='*)
            if [ -n "$command" ]; then return 1; fi
            path=${{value#*path=}} path=${{path%% ;*}}
            command=${{value#*argv\[\]=}} command=${{command%% ;*}} ;;
        EnvironmentFiles=?*)
            file=${{value%% (*}}
            if grep -qs PYTHON "$R$file"; then return 1; fi ;;
        Environment=*PYTHON*) return 1 ;;
        Environment=*) ;;
        *=?*) return 1 ;;
        esac
    done <<END
$(systemctl show salt-minion.service -p LoadState -p Type -p User -p WatchdogUSec -p ExecStart \
    -p ExecStartPre -p ExecStartPost -p ExecCondition -p RootDirectory -p RootImage \
    -p Environment -p EnvironmentFiles)
END
    if [ -z "$loaded" ]; then why="the guest has no salt-minion.service"; return 1; fi
    case $command in ''|*[!A-Za-z0-9/._=:@+,\ -]*) return 1 ;; esac
    mkdir -m 700 -p "$folder" && (umask 077; cat >"$folder/sitecustomize.py") <<'PROGRAM' || return
PROGRAM_TEXT
PROGRAM
    why="its salt-minion is not a program of a Python that can be preloaded"
    case $(KVM_CLONE_PRELOAD=try PYTHONPATH=$folder "$path" --version 2>/dev/null) in
    'kvm-clone: preloads') ;;
    *) rm -rf "$folder"; return 1 ;;
    esac
}}

# preload_start: whether it waits. What the service depends on is no matter, since it does nothing.
preload_start() {{
    why="its minion cannot be started to wait"
    mkdir -p "${{drop_in%/*}}" && printf '%s\n' "[Service]" "ExecStart=" \
        "ExecStart=/usr/bin/env PYTHONPATH=$folder KVM_CLONE_PRELOAD=wait $command" \
        "SyslogIdentifier=${{path##*/}}" TimeoutStartSec=infinity Restart=no >"$drop_in" &&
        systemctl daemon-reload &&
        systemctl --no-block --job-mode=ignore-dependencies start salt-minion.service || return
    why="its minion has not imported its modules within {IMPORTS_TIMEOUT_S} s"
    left={IMPORTS_TIMEOUT_S * 2}
    until preloaded; do
        if [ "$left" = 0 ]; then return 1; fi
        left=$((left - 1))
        sleep 0.5
    done
}}
"""


def warming() -> str:
    """Return the function ``preload`` for a guest that is being warmed, and what it needs."""
    return FUNCTIONS + _WARMING.replace("PROGRAM_TEXT", program())

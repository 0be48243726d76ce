"""A minion that is preloaded: a real salt-minion waits, and goes on as what its service started."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from lab.common import CACHE
from saltext.kvmclone.errors import CommandFailed
from saltext.kvmclone.guest import preload_script, warming
from tests.unit.guest.conftest import Guest

MINION = CACHE / "venv/bin/salt-minion"

#: What a systemd says of the service, and how it starts it: of several drop-ins the last name wins,
#: wherever it is. What it starts stays our child.
SYSTEMCTL = """#!/bin/sh
cd "$KVM_CLONE_ROOT" || exit
case "$*" in
show*) cat unit ;;
*start*)
    for folder in etc run; do
        for file in $folder/systemd/system/salt-minion.service.d/*.conf; do
            if [ -e "$file" ]; then echo "${file##*/} $file"; fi
        done
    done | LC_ALL=C sort | while read -r _ file; do
        sed -n 's/^ExecStart=\\(.\\)/\\1/p' "$file"
    done | tail -n 1 >command
    setsid sh command </dev/null >out 2>&1 & ;;
*stop*salt-minion*) if [ -e run/kvm-clone-preload/waiting ]; then
    kill "$(cat run/kvm-clone-preload/waiting)"; fi ;;
esac
echo "systemctl $*" >>.called
"""

UNIT = """Type=notify
ExecStart={{ path={0} ; argv[]={0}{1} ; ignore_errors=no ; start_time=[n/a] }}
User=
LoadState=loaded
WatchdogUSec=0
Environment=LC_ALL=C
"""

#: A program that says whether it has Salt's modules, and what it finds of us.
TELLS = """#!{python}
import os, sys
ours = [path for path in sys.path if "preload" in path]
ours += [name for name in os.environ if name in ("PYTHONPATH", "KVM_CLONE_PRELOAD")]
print("salt.minion" in sys.modules, ours, sys.argv[1:])
"""


@pytest.fixture
def warmed(guest: Guest) -> Iterator[Guest]:
    """A guest that is being warmed, in which processes of this machine are seen."""
    guest.put("/run/systemd/system/x")
    guest.put(".tools/systemctl", SYSTEMCTL, 0o755)
    guest.tool("sync")
    (guest.root / "proc/sys/kernel/hostname").unlink()
    for path in ("proc/sys/kernel", "proc/sys", "proc"):
        (guest.root / path).rmdir()
    (guest.root / "proc").symlink_to("/proc")
    guest.put("/etc/salt/minion", "id: of-the-base\n")
    with_service(guest, str(MINION), " --version")
    yield guest
    if (pid := waiting(guest)) is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def broken_key() -> bytes:
    """A private key whose numbers do not fit each other, which only a test of them tells."""
    good = rsa.generate_private_key(65537, 2048).private_numbers()
    numbers = (0, good.public_numbers.n, 65537, good.d + 2, good.p, good.q)
    body = b"".join(map(_number, (*numbers, good.dmp1, good.dmq1, good.iqmp)))
    text = base64.encodebytes(_der(0x30, body))
    kind = b"RSA PRIVATE KEY-----\n"
    return b"-----BEGIN " + kind + text + b"-----END " + kind


def _number(number: int) -> bytes:
    return _der(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, *([size] if size < 128 else [0x80 | len(length), *length])]) + content


def with_service(guest: Guest, program: str, arguments: str = "", more: str = "") -> None:
    guest.put("unit", UNIT.format(program, arguments) + more)


def with_customized_python(guest: Guest) -> Path:
    """Have the service's Python a ``sitecustomize`` of its own; return its path."""
    python = guest.root / "opt/venv"
    venv.create(python, symlinks=True)
    (packages,) = python.glob("lib/python3*/site-packages")
    (salts,) = (CACHE / "venv").glob("lib/python3*/site-packages")
    # Before the standard library, which has one on Debian.
    (packages / "salt.pth").write_text(f"{salts}\nimport sys; sys.path.insert(1, '{packages}')\n")
    own = packages / "sitecustomize.py"
    own.write_text("import builtins, sys\nbuiltins.saw = 'salt.minion' in sys.modules\n")
    text = "import sys\nprint(saw, 'salt.minion' in sys.modules)\n"
    text += "print(sys.modules['sitecustomize'].__file__)\n"
    program = guest.put("/opt/minion", f"#!{python}/bin/python\n{text}", 0o755)
    with_service(guest, str(program))
    return own


def waiting(guest: Guest) -> int | None:
    with suppress(OSError):
        return int(guest.text(f"{preload_script.FOLDER}/waiting"))
    return None


def until_gone(pid: int) -> None:
    for _try in range(300):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError(f"{pid} goes on")


def go_on(guest: Guest) -> str:
    """Have the process go on, and return what it said until its end."""
    key = guest.put("/etc/salt/pki/minion/minion.pem", "no key")
    pid = waiting(guest)
    assert pid is not None
    said = guest.run(f"{preload_script.FUNCTIONS}\nrelease {key}", timeout=30)
    assert said.status == 0
    until_gone(pid)
    return guest.text("out")


@pytest.mark.slow  # a minion starts
def test_a_minion_waits_with_its_modules_and_then_becomes_what_was_started(warmed: Guest) -> None:
    assert warming.make_ready(warmed) == ()
    pid = waiting(warmed)
    assert pid is not None
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "zmq" in maps and "cryptography" in maps
    environment = Path(f"/proc/{pid}/environ").read_text()
    assert "KVM_CLONE_PRELOAD=wait" in environment
    assert warmed.text("out") == ""
    said = go_on(warmed)
    assert said.startswith("salt-minion 3")
    assert not warmed.has(preload_script.FOLDER)


@pytest.mark.slow
@pytest.mark.parametrize("line", ["3006", "3007"])
def test_older_salt_lines_are_preloaded_too(warmed: Guest, line: str) -> None:
    program = CACHE / f"venv-{line}/bin/salt-minion"
    if not program.exists():
        pytest.skip(f"there is no Salt {line}")
    with_service(warmed, str(program), " --version")
    assert warming.make_ready(warmed) == ()
    assert go_on(warmed).startswith(f"salt-minion {line}")


def test_only_the_key_that_it_was_given_is_not_tested(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for path in (own, other):
        path.write_bytes(broken_key())
    (tmp_path / "key").write_text(f"{own}\n")
    *_, functions = preload_script.program().partition("def trust_own_key")
    text = f"HERE = {str(tmp_path)!r}\nimport os, sys\ndef trust_own_key" + functions
    text = text.partition("\n# What fails")[0] + (
        "trust_own_key()\n"
        "from cryptography.hazmat.primitives import serialization\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        serialization.load_pem_private_key(open(path, 'rb').read(), password=None)\n"
        "        print('taken')\n"
        "    except ValueError:\n"
        "        print('refused')\n"
    )
    command = [sys.executable, "-c", text, str(own), str(other)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["taken", "refused"]


def test_nothing_of_it_stays_in_the_service(warmed: Guest) -> None:
    warming.make_ready(warmed)
    assert os.listdir(warmed.root / "run/systemd/system") == ["x"]
    reloads = [line for line in warmed.services if "daemon-reload" in line]
    assert len(reloads) == 2
    assert (warmed.root / "run/kvm-clone-preload").stat().st_mode & 0o777 == 0o700


def test_what_goes_on_has_the_modules_and_sees_nothing_of_us(warmed: Guest) -> None:
    program = warmed.put("/opt/minion", TELLS.format(python=sys.executable), 0o755)
    with_service(warmed, str(program), " -c /etc/salt")
    assert warming.make_ready(warmed) == ()
    assert go_on(warmed) == "True [] ['-c', '/etc/salt']\n"


def test_what_the_imports_have_drawn_is_drawn_anew() -> None:
    # Two forks of one memory: two processes that are forked from one.
    *_, functions = preload_script.program().partition("def draw_anew")
    text = "import os, random, uuid, multiprocessing, sys\ndef draw_anew" + functions
    text = text.partition("def forget")[0] + (
        "own = random.Random(1)\n"
        "for fork in range(2):\n"
        "    if os.fork() == 0:\n"
        "        draw_anew([own])\n"
        "        key = multiprocessing.current_process().authkey.hex()\n"
        "        print(random.random(), own.random(), key, sep='\\n', flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    said = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert len(set(said.stdout.split())) == 6


def test_a_module_that_was_replaced_is_imported_from_its_new_file(warmed: Guest) -> None:
    own = with_customized_python(warmed)
    warming.make_ready(warmed)
    own.write_text(own.read_text() + "saw = builtins.saw = 'anew'\n")
    assert go_on(warmed).splitlines() == ["anew False", str(own)]


@pytest.mark.slow  # a minion starts
def test_a_drop_in_of_the_operator_does_not_start_the_minion_instead(warmed: Guest) -> None:
    own = "/etc/systemd/system/salt-minion.service.d/override.conf"
    warmed.put(own, f"[Service]\nExecStart=\nExecStart={MINION} --version\n")
    assert warming.make_ready(warmed) == ()
    assert go_on(warmed).startswith("salt-minion 3")
    assert warmed.has(own)


def test_what_customizes_its_python_does_so_before_the_modules_as_always(warmed: Guest) -> None:
    own = with_customized_python(warmed)
    assert warming.make_ready(warmed) == ()
    assert go_on(warmed).splitlines() == ["False True", str(own)]


@pytest.mark.parametrize(
    ("more", "program"),
    [
        ("Type=forking\n", str(MINION)),
        ("User=salt\n", str(MINION)),
        ("ExecStartPre={ path=/bin/true ; argv[]=/bin/true }\n", str(MINION)),
        ("Environment=PYTHONPATH=/opt\n", str(MINION)),
        ("LoadState=masked\n", str(MINION)),
        ("", "/bin/true"),
        ("", "/opt/there-is-none"),
    ],
)
def test_what_does_not_fit_is_left_alone_with_a_word_about_it(
    warmed: Guest, more: str, program: str
) -> None:
    with_service(warmed, program, more=more)
    (told,) = warming.make_ready(warmed)
    assert told.startswith("Its minion is not preloaded, so that its forks answer later: ")
    assert not any("start salt-minion" in line for line in warmed.services)
    assert not warmed.has(preload_script.FOLDER)


def test_a_minion_that_does_not_wait_is_stopped_and_leaves_nothing(
    warmed: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = preload_script._WARMING
    monkeypatch.setattr(preload_script, "_WARMING", text.replace("left=240", "left=1"))
    # It says that it can be preloaded, and starts as a minion all the same.
    program = warmed.put("/opt/minion", "#!/bin/sh\necho 'kvm-clone: preloads'\n", 0o755)
    with_service(warmed, str(program))
    (told,) = warming.make_ready(warmed)
    assert "within 120 s" in told
    assert "systemctl stop salt-minion.service" in warmed.services
    assert not warmed.has(preload_script.FOLDER)
    assert os.listdir(warmed.root / "run/systemd/system") == ["x"]


def test_a_minion_that_leaves_its_identity_is_a_failure(
    warmed: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = preload_script._WARMING
    monkeypatch.setattr(preload_script, "_WARMING", text.replace("left=240", "left=2"))
    if warmed.shell[0] == "busybox":
        pytest.skip("its shell has an rm of its own")
    keeps = warmed.tools / "rm"
    warmed.put(".rm", '#!/bin/sh\ncase "$*" in *minion_id*) exit 1 ;; esac\nexec /bin/rm "$@"\n')
    program = warmed.put(
        "/opt/minion",
        "#!/bin/sh\necho 'kvm-clone: preloads'\n"
        f'[ "$*" ] || {{ cp {warmed.root}/.rm {keeps}; chmod 755 {keeps}; '
        f"echo of-the-base >{warmed.root}/etc/salt/minion_id; }}\n",
        0o755,
    )
    with_service(warmed, str(program))
    with pytest.raises(CommandFailed, match="salt_identity: the files cannot be removed"):
        warming.make_ready(warmed)


def test_another_process_of_that_number_is_not_told_to_go_on(guest: Guest) -> None:
    guest.put(f"{preload_script.FOLDER}/waiting", "12\n")
    guest.put("/proc/12/comm", "sshd\n")
    said = guest.run(f"{preload_script.FUNCTIONS}\nrelease /key", timeout=30)
    assert said.status != 0
    assert not guest.has(f"{preload_script.FOLDER}/key")


def test_a_minion_that_nobody_needs_is_stopped(warmed: Guest) -> None:
    warming.make_ready(warmed)
    pid = waiting(warmed)
    assert pid is not None
    assert warmed.run(f"{preload_script.FUNCTIONS}\nunload", timeout=30).status == 0
    until_gone(pid)

"""What the tests of cloud-init seeds share: making them, and asking a guest what ran."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lab.common import LIBVIRT_URI, run
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.hypervisor.host import Host

#: A base's password, which no clone may have again.
SECRET = "the-password-of-the-base"

#: What shows that user-data ran: at each boot, and once for each instance.
AT_BOOT, ONCE = "/root/trace-bootcmd", "/root/trace-runcmd"


def user_data(word: str, more: str = "") -> str:
    """User-data that leaves ``word`` wherever it runs, and sets the password of root."""
    return f"""#cloud-config
bootcmd: ["echo {word} >>{AT_BOOT}"]
runcmd: ["echo {word} >>{ONCE}"]
chpasswd: {{expire: false, list: "root:{SECRET}-{word}\\n"}}
{more}"""


def make_iso(path: Path, label: str, files: dict[str, str]) -> Path:
    """An ISO 9660 image of that label with these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        run(
            ["xorrisofs", "-quiet", "-output", path, "-volid", label, "-joliet", "-rational-rock"]
            + [folder]
        )
    return path


def make_seed(path: Path, user: str, network: str = "", label: str = "cidata") -> Path:
    """A seed for NoCloud."""
    files = {"user-data": user, "meta-data": f"instance-id: of-{path.stem}\n"}
    return make_iso(path, label, {**files, **({"network-config": network} if network else {})})


@contextmanager
def seed_server(address: str) -> Iterator[str]:
    """Serve each machine a seed by the number in the path, ``of-NUMBER``; yield the address."""

    class Seeds(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, number, file = self.path.split("/")
            word = f"of-{number.lower()}"
            text = {"meta-data": f"instance-id: {word}\n", "user-data": user_data(word)}.get(file)
            self.send_response(404 if text is None else 200)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((address, 0), Seeds) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{address}:{server.server_port}"
        server.shutdown()


def told(name: str, command: str) -> str:
    """What a command in a guest says, over its agent."""
    with Host(LIBVIRT_URI) as host:
        result = AgentChannel(host.domain(name).agent).run(command, timeout=300)
    return result.output.strip()


def boot_is_over(name: str) -> bool:
    """Whether the guest has booted, and cloud-init in it is done or was not to run."""
    try:
        state = told(name, "systemctl is-system-running; ls /run/cloud-init")
    except Exception:  # not there yet, whatever the reason
        return False
    settled = state.startswith(("running", "degraded"))
    return settled and ("result.json" in state or "disabled" in state)


def virsh(*words: str) -> str:
    return subprocess.run(
        ["virsh", "-c", LIBVIRT_URI, *words], check=True, capture_output=True, text=True
    ).stdout

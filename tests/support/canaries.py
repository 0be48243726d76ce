"""Secrets that sing where they get out, and everything that is searched for them."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lab.common import run

#: Shorter pieces of a secret would be found where nothing leaked.
_SHORTEST = 16


def password() -> str:
    """One whose every escaped form differs; the letters in it never do."""
    return f"'\"\\${{{secrets.token_hex(12)}}}: ü%"


def login_key(passphrase: str) -> tuple[str, str]:
    """A private key behind a passphrase, and the public half as sshd reads it."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return private.decode(), public.decode()


def hidden_half(private: str) -> str:
    """
    What :func:`login_key` made, without the lines that tell the public half: ``authorized_keys``
    holds the same characters wherever the groups of base64 fall alike.
    """
    return "\n".join(private.splitlines()[4:])


def forms(secret: str) -> set[bytes]:
    """
    Everything that a secret looks like when it is quoted, escaped, encoded or cut into lines.

    What YAML, JSON, a shell and a URL leave as it is stands for every escaped form; base64 has
    three, one for each place in its groups of three bytes.
    """
    # "BEGIN PRIVATE KEY" itself is no secret; it stands in every file with a key.
    secret = "\n".join(line for line in secret.splitlines() if not line.startswith("-----"))
    plain = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    plain |= {line for line in secret.splitlines() if len(line) >= _SHORTEST}
    plain |= set(_words(secret))
    found = {text.encode() for text in plain if "\n" not in text}
    for text in {secret, *_words(secret)}:
        data = text.encode()
        found |= {data.hex().encode(), data.hex().upper().encode()}
        for shift in range(3):
            coded = base64.b64encode(b"\0" * shift + data)
            whole = coded[(8 * shift + 5) // 6 : len(coded) - 4]  # what neighbours cannot change
            found |= {whole, whole.translate(bytes.maketrans(b"+/", b"-_"))}
    return {form[:400] for form in found if len(form) >= _SHORTEST}


def _words(secret: str) -> Iterator[str]:
    """The runs of letters and digits that no way of writing changes."""
    word = ""
    for character in secret + "\n":
        if character.isascii() and character.isalnum():
            word += character
            continue
        if len(word) >= _SHORTEST:
            yield word
        word = ""


class Canaries:
    """The secrets of one run, by name."""

    def __init__(self, **named: str) -> None:
        self.named: dict[str, set[bytes]] = {}
        for name, secret in named.items():
            self.add(name, secret)

    def add(self, name: str, secret: str) -> None:
        self.named[name] = forms(secret)
        if not self.named[name]:
            raise ValueError(f"the canary '{name}' is too short to be told from anything else")

    def heard(self, text: str | bytes) -> list[str]:
        """The names of the secrets that a text holds, in whatever form."""
        data = text.encode() if isinstance(text, str) else text
        return [name for name, shapes in self.named.items() if any(one in data for one in shapes)]

    def heard_in_files(
        self, folders: Iterable[Path], spared: Iterable[Path] = (), without: Iterable[str] = ()
    ) -> dict[str, list[str]]:
        """
        Which files below these folders hold which secrets.

        :param spared: The secrets' own places.
        :param without: Patterns of file names that are not read (images of disks).
        """
        everything = b"\n".join(sorted(set().union(*self.named.values())))
        excluded = [f"--exclude={pattern}" for pattern in without]
        there = [str(folder) for folder in folders if folder.exists()]
        done = subprocess.run(  # the patterns come by stdin: nobody may see them in /proc
            ["grep", "-rasZlF", "--devices=skip", *excluded, "-f", "-", "--", *there],
            input=everything,
            capture_output=True,
            check=False,
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        )
        if done.returncode > 2 or not there:
            raise RuntimeError(f"grep: {done.returncode} {done.stderr!r}")
        known = {path.resolve() for path in spared}
        found = {}
        for name in done.stdout.decode().split("\0"):
            if name and Path(name).resolve() not in known:
                try:
                    found[name] = self.heard(Path(name).read_bytes())
                except OSError:
                    found[name] = ["(gone meanwhile)"]
        return found


class Watch:
    """Every command line and environment of this machine, looked at all the time."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.rounds = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _look(self) -> None:
        while not self._over.wait(0.03):
            for process in Path("/proc").iterdir():
                if not process.name.isdigit():
                    continue
                for part in ("cmdline", "environ"):
                    try:
                        self.seen.add((process / part).read_bytes())
                    except OSError:
                        continue
            self.rounds += 1


@contextmanager
def opened(disk: Path, scratch: Path) -> Iterator[Path]:
    """The file system of a guest that is off, to be read."""
    raw, root = scratch / "guest.raw", scratch / "guest"
    run(["qemu-img", "convert", "-O", "raw", disk, raw])
    root.mkdir()
    try:
        run(["mount", "-o", "loop", raw, root])
        try:
            yield root
        finally:
            run(["umount", root])
    finally:
        raw.unlink()

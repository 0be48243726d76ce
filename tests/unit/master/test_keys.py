"""Keys under ids as long as an id may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import salt.config
import yaml

from saltext.kvmclone.master.keys import MinionKeys, generate

LONGEST = ".".join(["a" * 63] * 3 + ["b" * 61])


@pytest.fixture
def keys(tmp_path: Path) -> MinionKeys:
    path = tmp_path / "master"
    folders = {"root_dir": str(tmp_path), "pki_dir": str(tmp_path / "pki")}
    path.write_text(yaml.safe_dump({**folders, "cachedir": str(tmp_path / "cache")}))
    (tmp_path / "pki/minions").mkdir(parents=True)
    (tmp_path / "cache").mkdir()
    opts: dict[str, Any] = dict(salt.config.master_config(str(path)))
    return MinionKeys(opts)


@pytest.mark.parametrize("plain_files", [False, True])
def test_the_longest_id_has_its_key_accepted_and_taken_back(
    keys: MinionKeys, plain_files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plain_files:  # as before 3008
        monkeypatch.setattr(keys, "_stored", lambda *_: False)
    assert len(LONGEST) == 253
    public = generate(2048).public
    keys.accept(LONGEST, public)
    assert keys.accepted(LONGEST).strip() == public.strip()
    assert keys.remove(LONGEST, keys.fingerprint(public))
    assert keys.accepted(LONGEST) == ""

"""
Renew what firmware and kernel tell the guest about itself: SMBIOS, fw_cfg, the command line. Pure.

Whatever configures a guest stays, and so does what identifies nobody. What names the base in a form
that is known for certain is renewed, such as the host name in ``ds=nocloud;h=…``; a number of one
board is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from lxml import etree

from saltext.kvmclone.model import libvirt_xml, redacted_text, redaction
from saltext.kvmclone.plan.rewrite.common_names import is_common
from saltext.kvmclone.plan.rewrite.identity import Identity
from saltext.kvmclone.plan.rewrite.result import Rewritten, mentions, remove, replace_word
from saltext.kvmclone.plan.rewrite.seed import SeedChange, rewrite_seed

#: Entries of SMBIOS that mostly name one individual machine; ``uuid`` has its own rule.
_SERIALS = ("serial", "asset", "location")

#: What a board without a number of its own says (vendors' firmware, and those who copied it).
_NO_NUMBER = re.compile(
    r"to be filled.*|default string|not (?:specified|applicable|available|provided|set).*|none|"
    r"n/?a|null|unknown|unspecified|empty|invalid|o\.?e\.?m\.?|standard|virtual machine|"
    r"(?:system |chassis |base ?board |board |product )?serial(?: number| no)?|"
    r"(?:no )?(?:chassis |base ?board |board |product )?asset(?: tag| number| information)?|"
    r"asset-1234567890|0?123456789[0a]?|0+|x+|[.* -]+",
    re.IGNORECASE,
)

#: Asset tags by which a guest knows the cloud that it is in, as cloud-init has them.
_CLOUDS = {
    "7783-7084-3265-9085-8269-3286-77", "amazon ec2", "huaweicloud", "openstack compute",
    "openstack nova", "opentelekomcloud", "oraclecloud.com", "samsung cloud platform",
    "sap ccloud vm", "vmware",
}  # fmt: skip

#: What is in no serial number, and in every configuration: ``key=value``, an address, JSON.
_CONFIGURATION = re.compile(r"[={]|://")

#: cloud-init's data source with its keys; the kernel takes it in quotes, too.
_DATA_SOURCE = re.compile(r"(?<![\w.-])ds=[\"']?nocloud(?:-net)?(?:;[^\s\"']*)?", re.IGNORECASE)

#: Keys of the data source by their long names.
_KEYS = {"h": "local-hostname", "i": "instance-id", "s": "seedfrom"}

#: Words of a kernel's command line that are a seed, or lead cloud-init to one.
_SEEDS = re.compile(
    r"(?:^|(?<=\s))(?:cloud-config-url=\S*|cc:.*?(?:end_cc\b|$))\s*", re.IGNORECASE | re.DOTALL
)


def names_one_machine(value: str) -> bool:
    """Return whether a serial number or asset tag is one, and neither configuration nor filler."""
    filler = _NO_NUMBER.fullmatch(value) or value.lower() in _CLOUDS
    return not (filler or _CONFIGURATION.search(value))


def uuid_for(root: etree._Element, fresh: str) -> str:
    """
    Return the uuid for a clone: a fresh one, that cloud-init takes for EC2's where the base's is.

    cloud-init does where uuid and serial number are equal, and begin with ``ec2``.

    :param root: The base's definition.
    """
    uuid = libvirt_xml.text(root, "uuid")
    serials = root.findall("./sysinfo/system/entry[@name='serial']")
    like_ec2 = uuid.lower().startswith("ec2") and any(
        _plain(entry.text or "") == _plain(uuid) for entry in serials
    )
    return f"ec2{fresh[3:]}" if like_ec2 else fresh


def names_a_source(root: etree._Element) -> bool:
    """
    Return whether cloud-init is told where to look, so that it runs without a seed on a disk, too.

    :param root: The base's definition.
    """
    told = (*root.findall("./os/cmdline"), *root.findall("./sysinfo/system/entry[@name='serial']"))
    return any(_DATA_SOURCE.search(element.text or "") for element in told)


def rewrite_words(root: etree._Element, new: Identity, seed: SeedChange, out: Rewritten) -> None:
    """
    Renew seeds, and what else the guest is told of itself, before the cards have new addresses.

    :param seed: With a seed of the clone's own, cloud-init is not to look for another.
    """
    rewrite_seed(root, seed, out)
    cards: dict[str, str] = {}
    for card, own in zip(root.findall("./devices/interface"), new.macs, strict=False):
        mac = card.find("mac")
        cards[mac.get("address", "") if mac is not None else ""] = own
    words = _Words(new, seed, cards, out)
    _sysinfo(root, words)
    cmdline = root.find("./os/cmdline")
    if cmdline is None:
        return
    if not seed.words:
        old = cmdline.text or ""
        left = _SEEDS.sub("", old).strip()
        if left != old.strip():
            # The words are not shown: they may be, or lead to, something secret.
            out.change("cmdline seed", "of the base", None)
            cmdline.text = left
    words.renew(cmdline, "cmdline")


def _sysinfo(root: etree._Element, words: _Words) -> None:
    out, uuid = words.out, words.new.uuid
    # libvirt refuses a definition whose SMBIOS uuid differs from the domain's.
    for entry in root.findall("./sysinfo/system/entry[@name='uuid']"):
        entry.text = uuid
        out.change("sysinfo uuid", redaction.shown(root, "uuid", out.base_uuid) or None, uuid)
    for section in root.findall("./sysinfo/*"):
        for entry in section.findall("entry"):
            name = entry.get("name", "")
            label = f"sysinfo {section.tag} {name}".rstrip()
            if name in _SERIALS:
                _serial(entry, label, words)
            elif name != "uuid":
                words.renew(entry, label)
        if section.tag != "entry" and len(section) == 0:
            remove(section)
    for entry in root.findall("./sysinfo/entry"):
        name = redaction.shown(entry, "sysinfo/entry@name", entry.get("name", ""))
        words.renew(entry, f"sysinfo {name}")
        if entry.get("file"):
            out.warn(
                f"Shares the file '{redaction.path(entry.get('file', ''))}' with its base "
                f"(<sysinfo> entry '{name}'): if it is for one machine, name another in the base's "
                "definition."
            )


def _serial(entry: etree._Element, label: str, words: _Words) -> None:
    """Renew, keep or leave out a serial number, an asset tag or a place."""
    value, out, new = (entry.text or "").strip(), words.out, words.new
    if not value:
        return
    if _plain(value) == _plain(out.base_uuid):
        entry.text = _spelled(new.uuid, value)
        out.change(label, redaction.shown(entry, "uuid", out.base_uuid), new.uuid)
    elif value == out.base:
        entry.text = new.name
        out.change(label, value, new.name)
    elif names_one_machine(value):
        out.change(label, redacted_text.HIDDEN, None)
        remove(entry)
    else:
        words.renew(entry, label)


@dataclass(frozen=True)
class _Words:
    """
    What the clone is told instead of what its base was told.

    :param cards: MAC address of each card of the base, and the clone's instead of it.
    """

    new: Identity
    seed: SeedChange
    cards: dict[str, str]
    out: Rewritten

    def renew(self, element: etree._Element, label: str) -> None:
        """Renew what a text says of the machine, and note each part of it as a change."""
        old = element.text or ""
        new = _DATA_SOURCE.sub(lambda found: self._data_source(found[0], label), old)
        new = _host_name_of(self.out.base).sub(lambda found: self._named(found, label), new)
        said = new
        new = self._numbers(said)
        if new != said:
            self.out.change(f"{label} number", "of the base", "of the clone")
        if new != old:
            element.text = new

    def _named(self, found: re.Match[str], label: str) -> str:
        self.out.change(f"{label} hostname", self.out.base, self.new.name)
        return f"{found['key']}{self._host_name(found['domain'])}"

    def _host_name(self, domain: str) -> str:
        name = self.new.name
        return name if "." in name else f"{name}{domain}"

    def _data_source(self, word: str, label: str) -> str:
        head, *parts = word.split(";")
        if self.seed.target:  # what is said here would count for more than what the disk says
            if any(parts):
                self.out.change(f"{label} seed", "of the base", None)
            return re.sub("nocloud-net", "nocloud", head, flags=re.IGNORECASE)
        return ";".join([head, *(self._part(part, label) for part in parts)])

    def _part(self, part: str, label: str) -> str:
        key, _, value = part.partition("=")
        match _KEYS.get(key, key):
            case "local-hostname":
                new = self._host_name("".join(value.partition(".")[1:]))
                shown = self.out.base if mentions(value, self.out.base) else redacted_text.HIDDEN
                self.out.change(f"{label} hostname", shown, self.new.name)
            case "instance-id":
                new = self.new.uuid
                self.out.change(f"{label} instance-id", redacted_text.HIDDEN, new)
            case "seedfrom":
                new = self._address(value, label)
            case _:
                return part
        return f"{key}={new}"

    def _address(self, address: str, label: str) -> str:
        """Return the address of a seed that names the base as one that names the clone."""
        scheme, separator, rest = address.rpartition("://")
        host, slash, path = rest.partition("/") if separator else ("", "", rest)
        new = self._numbers(path)
        if not (self.seed.words or is_common(self.out.base)):
            new = replace_word(new, self.out.base, self.new.name)
        if new == path:
            return address
        self.out.change(f"{label} seed", "of the base", "of the clone")
        self.out.warn(
            f"The address of cloud-init's seed in <{label}> named the base, and names the clone "
            "now. Where nothing is there for it cloud-init goes without: put a seed there, or give "
            "the clone one of its own (seed: {user_data: …}). 'seed: keep' lets it ask for the "
            "base's."
        )
        return f"{scheme}{separator}{host}{slash}{new}"

    def _numbers(self, text: str) -> str:
        """Return a text with the clone's uuid and MAC addresses for the base's, spelled alike."""
        for old, own in ((self.out.base_uuid, self.new.uuid), *self.cards.items()):
            if own and (plain := _plain(old)):
                spelled = rf"(?<![0-9a-f]){'[:.-]?'.join(plain)}(?![0-9a-f])"
                text = re.sub(spelled, partial(_spelled, own), text, flags=re.IGNORECASE)
        return text


def _host_name_of(base: str) -> re.Pattern[str]:
    """Return what finds the base's name as a host name: ``systemd.hostname=base.example.org``."""
    return re.compile(
        rf"(?P<key>(?<![A-Za-z0-9])hostname=[\"']?){re.escape(base)}"
        r"(?P<domain>(?:\.[A-Za-z0-9-]+)*)(?![A-Za-z0-9._-])"
    )


def _plain(text: str) -> str:
    return re.sub("[:.-]", "", text.strip().lower())


def _spelled(value: str, like: str | re.Match[str]) -> str:
    """Return a uuid or MAC address with the other's separators, and in capitals where that is."""
    shape = like if isinstance(like, str) else like[0]
    digits = iter(_plain(value))
    spelled = "".join(next(digits, "") if char.isalnum() else char for char in shape)
    return spelled.upper() if shape.isupper() else spelled

"""
Parse libvirt's XML safely, above all domain definitions, and write it again.

Pure: lxml only. The parser resolves no entities and loads nothing from outside, since a
definition may come from somebody hostile; one that libvirt and this library could read in two
ways is refused.
"""

from __future__ import annotations

import copy
import functools
import re

from lxml import etree

from saltext.kvmclone.errors import PlanRefused

_MEMORY_UNITS = {
    "b": 1, "bytes": 1,
    "kb": 1000, "k": 1024, "kib": 1024,
    "mb": 1000**2, "m": 1024**2, "mib": 1024**2,
    "gb": 1000**3, "g": 1024**3, "gib": 1024**3,
    "tb": 1000**4, "t": 1024**4, "tib": 1024**4,
    "pb": 1000**5, "p": 1024**5, "pib": 1024**5,
    "eb": 1000**6, "e": 1024**6, "eib": 1024**6,
}  # fmt: skip

_MEND = "Look at it with 'virsh dumpxml BASE' and fix it with 'virsh edit BASE'."

#: What may stand before the root element, up to a DTD.
_PROLOG = re.compile(r"\ufeff?(?:\s|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)

#: Parts of a definition that may occur more than once; of all others libvirt reads the first.
_REPEATED = {"sysinfo", "seclabel"}
_REPEATED_IN_OS = {"boot", "initarg", "initenv"}

#: Parts that a device has once. Character devices may have several sources.
_ONCE = {
    "backend", "cid", "driver", "mac", "mirror", "serial", "source", "target", "uuid", "wwn",
}  # fmt: skip
_SEVERAL_SOURCES = {"serial", "parallel", "console", "channel", "redirdev", "smartcard"}

_DEFINITIONS = etree.XMLParser(
    encoding="utf-8",
    resolve_entities=False,
    no_network=True,
    load_dtd=False,
    remove_blank_text=False,
    remove_comments=True,
    remove_pis=True,
    huge_tree=False,
)
_OTHERS = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)


def parse(xml: str) -> etree._Element:
    """
    Parse a domain definition safely.

    Comments and processing instructions are dropped, as libvirt skips them.

    :param xml: The definition.
    :return: A tree of the caller's own.
    :raises PlanRefused: The text is not a well-formed domain definition, tries to define
        entities, or could be read in two ways.
    """
    return copy.deepcopy(shared(xml))


@functools.lru_cache(maxsize=8)  # one create looks at the base's and its own several times
def shared(xml: str) -> etree._Element:
    """
    Parse a domain definition as :func:`parse` does, for somebody who only looks at it.

    :return: A tree that others look at, too, and nobody may change.
    """
    prolog = _PROLOG.match(xml)
    if prolog and xml.startswith("<!DOCTYPE", prolog.end()):
        raise PlanRefused("The domain definition carries a DTD; definitions never need one.", _MEND)
    try:
        root = etree.fromstring(xml.encode(), _DEFINITIONS)
    except etree.XMLSyntaxError as error:
        # The error's text quotes the definition, which may hold a secret; a traceback would, too.
        raise PlanRefused(
            f"The domain definition is not well-formed XML (line {error.lineno}).",
            _MEND,
        ) from None
    except UnicodeEncodeError:
        raise PlanRefused(
            "The domain definition is not well-formed XML: it contains something that is not "
            "a character.",
            _MEND,
        ) from None
    if root.tag != "domain":
        raise PlanRefused(f"Expected a <domain> definition and found <{root.tag}>.", _MEND)
    if "xmlns" in xml or "xml:" in xml:  # no name has a namespace without one of them
        _check_namespaces(root)
    _check_repetition(root)
    return root


def element(xml: str) -> etree._Element:
    """
    Parse another XML text of libvirt's: a pool, volume or network, metadata, capabilities.

    Comments stay, and nothing is refused; a domain's definition goes through :func:`parse`.

    :return: The root element.
    :raises lxml.etree.XMLSyntaxError: The text is not well-formed.
    """
    return etree.fromstring(xml.encode(), _OTHERS)


def _check_namespaces(root: etree._Element) -> None:
    """
    Refuse names of other namespaces within libvirt's own elements.

    libvirt sometimes looks at an element's name without its namespace, and sometimes not. Its own
    extensions stand directly below the root, and foreign elements in ``<metadata>``.

    :raises PlanRefused: There is such a name.
    """
    ours = [child for child in root if not str(child.tag).startswith(("{", "metadata"))]
    inside = [element for child in ours for element in child.iter(etree.Element)]
    for element in (root, *inside):
        for name in (str(element.tag), *map(str, element.attrib)):
            if name.startswith("{"):
                raise PlanRefused(
                    "The domain definition uses the foreign name "
                    f"'{etree.QName(name).localname}' inside of libvirt's own elements.",
                    _MEND,
                )


def _check_repetition(root: etree._Element) -> None:
    """
    Refuse an element that occurs several times where libvirt reads only one of them.

    That may be another one than this library changes.

    :raises PlanRefused: There is such an element.
    """
    _once(root, {str(child.tag) for child in root} - _REPEATED)
    for part in root.findall("os"):
        _once(part, {str(child.tag) for child in part} - _REPEATED_IN_OS)
    for device in root.findall("./devices/*"):
        _once(device, _ONCE - {"source"} if device.tag in _SEVERAL_SOURCES else _ONCE)


def _once(element: etree._Element, names: set[str]) -> None:
    tags = [str(child.tag) for child in element]
    if len(set(tags)) == len(tags):
        return
    for name in dict.fromkeys(tags):
        times = tags.count(name)
        if times > 1 and name in names:
            raise PlanRefused(
                f"<{element.tag}> has {times} <{name}> elements where there can be one.", _MEND
            )


def serialize(root: etree._Element) -> str:
    """Return a definition as XML text."""
    return etree.tostring(root, encoding="unicode")


def text(root: etree._Element, path: str) -> str:
    """Return the text of the first element at ``path``, stripped; empty where there is none."""
    found = root.find(path)
    return (found.text or "").strip() if found is not None else ""


def number(text: str | None, where: str) -> int:
    """
    Return a whole number that a definition holds; 0 for an empty or absent text.

    :param text: As it stands there; None where it is absent.
    :param where: Name of the element, for the error.
    :raises PlanRefused: It is not a number.
    """
    value = (text or "").strip()
    if not value:
        return 0
    if not re.fullmatch(r"[0-9]{1,20}", value):
        raise PlanRefused(f"<{where}> does not hold a number.", _MEND)
    return int(value)


def bytes_of(element: etree._Element | None) -> int:
    """
    Return the bytes that a libvirt size element (``<memory unit='KiB'>``) means; 0 without one.

    :raises PlanRefused: Its value is not a number, or libvirt does not know its unit.
    """
    if element is None or not (element.text or "").strip():
        return 0
    unit = _MEMORY_UNITS.get((element.get("unit") or "KiB").lower())
    if unit is None:
        raise PlanRefused(f"<{element.tag}> has a unit that libvirt does not know.", _MEND)
    return number(element.text, str(element.tag)) * unit

"""The page is one file that needs no other, and whatever a machine is called is only text."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from typing import Any

from saltext.kvmclone.display.page.picture import Picture
from saltext.kvmclone.display.page.render import page
from saltext.kvmclone.display.page.template import HEAD
from tests.support import pictures
from tests.support.html import Document
from tests.support.pictures import HOSTILE, NOW, picture

#: How the hostile text is shown: what nobody sees is written out.
SHOWN = HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\u001b")


def hostile() -> Picture:
    """A picture in which every text is what breaks out where nothing keeps it in."""
    bad = pictures.clone(1)
    texts = dict.fromkeys(
        ("name", "host", "base", "profile", "strategy", "state", "stage", "address"), HOSTILE
    )
    disks = tuple(dataclasses.replace(disk, path=HOSTILE, target=HOSTILE) for disk in bad.disks)
    minion = dataclasses.replace(bad.minion, id=HOSTILE, version=HOSTILE)
    bad = dataclasses.replace(bad, **texts, disks=disks, minion=minion, tags=(HOSTILE,))
    bad = dataclasses.replace(bad, warnings=(HOSTILE,), failed=HOSTILE, uuid=HOSTILE)
    told = dict.fromkeys(("type", "message", "hint"), HOSTILE)
    label = pictures.host(also=[HOSTILE], libvirt=HOSTILE)
    label["pools"] = {HOSTILE: label["pools"]["default"]}
    below = pictures.branch(bad, changes=[HOSTILE], clones={})
    found = [
        pictures.finding(HOSTILE, host=HOSTILE, kind=HOSTILE, message=HOSTILE, hint=HOSTILE),
        pictures.finding(HOSTILE, host=HOSTILE, level="note"),
    ]
    return Picture(
        master=HOSTILE,
        made=NOW,
        path=f"/srv/{HOSTILE}",
        clones={HOSTILE: bad},
        hosts={HOSTILE: label},
        bases={HOSTILE: {HOSTILE: pictures.state("missing"), "kvm02": pictures.state("same")}},
        tree={HOSTILE: {"source": HOSTILE, "state": HOSTILE, "clones": {HOSTILE: below}}},
        findings=found,
        unseen={HOSTILE: told},
        reached=frozenset({HOSTILE, "kvm02"}),
    )


def data_of(document: Document) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(document.texts["script"][0])
    return told


def test_what_a_machine_is_called_never_becomes_an_element_or_a_script() -> None:
    plain, bad = Document(page(picture())), Document(page(hostile()))
    assert {name for name, _ in bad.elements} <= {name for name, _ in plain.elements}
    assert len(bad.texts["script"]) == 2
    names = {name for _tag, attributes in bad.elements for name in attributes}
    assert not [name for name in names if name.startswith("on")], "no handler of events"
    assert bad.texts["script"][1] == plain.texts["script"][1]
    assert SHOWN in bad.texts["th"], "it is shown as it is written"
    assert ["Tags", SHOWN] in data_of(bad)["clones"][0]["more"]


def test_nothing_invisible_turns_the_text_around_it_over() -> None:
    told = page(hostile())
    assert "\u202e" not in told
    assert "\x1b" not in told


def test_the_policy_allows_the_pages_own_style_and_script_alone() -> None:
    document = Document(page(picture()))
    (policy,) = [
        one["content"] or ""
        for one in document.attributes("meta")
        if one.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'{digest(document.texts['style'][0])}'",
        "script-src": f"'{digest(document.texts['script'][1])}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def test_the_page_names_no_other_file_and_has_no_style_of_an_element() -> None:
    for _tag, attributes in Document(page(picture())).elements:
        assert not {"src", "srcset", "action", "style", "xlink:href"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")


def test_every_link_of_the_page_leads_somewhere() -> None:
    document = Document(page(picture()))
    there = {f"#{attributes.get('id')}" for _tag, attributes in document.elements}
    assert {link["href"] for link in document.attributes("a")} <= there
    assert document.open == [], "every element is closed"


def test_with_500_clones_and_a_finding_for_each_it_stays_under_a_megabyte() -> None:
    findings = [pictures.finding(f"web{n}") for n in range(500)]
    told = page(picture(500, findings=findings))
    assert told.count("salt-run kvmclone.resume web") == 500
    assert len(told.encode()) < 1_000_000


def test_the_page_says_what_it_is_and_how_to_make_it_again() -> None:
    told = page(picture())
    assert told.startswith(HEAD)
    assert "salt-run kvmclone.report /srv/fleet.html" in told
    assert "<title>Cloned machines of salt01, 2026-11-29" in told


def test_the_worst_that_there_is_stands_in_the_first_tile() -> None:
    assert "3 problems</b>1 data at risk, 1 not looked at, 1 to mend, 1 worth" in page(picture())
    calm = page(Picture("salt01", NOW, "/srv/fleet.html"))
    assert "All is well</b>no problem was found" in calm
    notes = page(picture(findings=[pictures.finding("x", level="note")], unseen={}))
    assert "All is well</b>1 worth knowing" in notes


def test_a_name_that_is_not_utf_8_can_be_written_all_the_same() -> None:
    told = page(picture(findings=[pictures.finding("web\udcff")]))
    assert "web\\udcff" in told.encode().decode()


def test_whatever_numbers_a_host_tells_the_page_is_made() -> None:
    odd = dataclasses.replace(
        pictures.clone(1), base="1" * 5000, created=1e300, expires=-1e18,
        timings={"cloned": 1e308, "booted": 1e308},
    )  # fmt: skip
    later = dataclasses.replace(pictures.clone(2), expires=1e15)
    told = page(Picture("salt01", NOW, "/x.html", clones={"odd": odd, "later": later}))
    assert '<th scope="row" class="name">odd</th>' in told

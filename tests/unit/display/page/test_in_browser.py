"""In a real browser the page fits, works, runs nothing but its own script and asks for nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.display.page.render import page
from tests.support import chromium, pictures
from tests.support.chromium import Page
from tests.support.pictures import HOSTILE, picture
from tests.unit.display.page.test_render import hostile

#: Pixels of a desk's screen and of a telephone's.
WIDTHS = (1200, 390)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium.browser(chromium.program(), tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(params=WIDTHS)
def shown(request: pytest.FixtureRequest, browser: Page, tmp_path: Path) -> Page:
    """A page of 40 clones, one of them with a long name."""
    long = pictures.clone(41, name="a" * 60, host="h" * 40)
    clones = {**picture().clones, long.name: long}
    path = tmp_path / "fleet.html"
    path.write_text(page(picture(clones=clones)))
    browser.events.clear()
    browser.open(path, request.param)
    return browser


def names(shown: Page) -> Any:
    """The clones that are seen, in their order."""
    return shown.value(
        "[...document.querySelectorAll('#clone-table tbody tr:not(.more):not([hidden])')]"
        ".map(row => row.cells[0].textContent)"
    )


def click(shown: Page, selector: str) -> None:
    shown.value(f"document.querySelector({selector!r}).click()")


def test_it_fits_the_window_and_asks_for_no_other_file(shown: Page, tmp_path: Path) -> None:
    width = shown.value("innerWidth")
    assert shown.value("document.documentElement.scrollWidth") <= width
    assert shown.complaints() == []
    assert set(shown.requests()) == {(tmp_path / "fleet.html").as_uri()}
    assert struct.unpack(">I", shown.picture()[16:20]) == (width,)


def test_a_title_sorts_and_sorts_the_other_way_when_clicked_again(shown: Page) -> None:
    click(shown, "#clone-table th:nth-child(5) button")
    assert names(shown)[:3] == ["web1", "web2", "web3"], "by address"
    click(shown, "#clone-table th:nth-child(5) button")
    assert names(shown)[0] == "a" * 60
    sorts = "document.querySelector('#clone-table th:nth-child(5)').getAttribute('aria-sort')"
    assert shown.value(sorts) == "descending"


def test_what_is_searched_for_may_stand_anywhere_in_a_clone(shown: Page) -> None:
    shown.value(
        "(box => { box.value = 'KVM01 web33-vda'; box.dispatchEvent(new Event('input')); })"
        "(document.querySelector('#filter input'))"
    )
    assert names(shown) == ["web33"]
    assert shown.value("document.getElementById('count').textContent") == "1 of 41"


def test_a_name_shows_more_of_it_and_hides_it_again(shown: Page) -> None:
    click(shown, "#clone-table .name button")
    assert "/var/lib/libvirt/images/" in shown.value("document.querySelector('.more').textContent")
    click(shown, "#clone-table .name button")
    assert shown.value("document.querySelector('.more')") is None


def test_it_says_how_old_it_is(shown: Page) -> None:
    assert shown.value("getComputedStyle(document.getElementById('stale')).display") == "block"
    assert shown.value("document.querySelector('#stale b').textContent")


def test_no_name_of_a_machine_is_run(browser: Page, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(page(hostile()))
    browser.events.clear()
    browser.open(path, 1200)
    assert browser.complaints() == [], "neither run nor refused"
    assert browser.value("document.images.length") == 0
    click(browser, "#clone-table .name button")
    assert HOSTILE.partition("\u202e")[0] in browser.value(
        "document.querySelector('.more').textContent"
    )


def test_it_prints(shown: Page) -> None:
    assert shown.printed().startswith(b"%PDF-")
    assert shown.value("[...document.querySelectorAll('details')].every(one => one.open)")

"""Write the page: one HTML file that needs no other and no network. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

from saltext.kvmclone import __version__
from saltext.kvmclone.display.page import bases, clones, hosts, lineage, problems, times
from saltext.kvmclone.display.page.picture import Picture
from saltext.kvmclone.display.page.problems import DANGER, NOTE, PROBLEM, UNSEEN, Problem
from saltext.kvmclone.display.page.script import SCRIPT
from saltext.kvmclone.display.page.style import STYLE
from saltext.kvmclone.display.page.template import TEMPLATE
from saltext.kvmclone.display.text import visible
from saltext.kvmclone.errors import readable
from saltext.kvmclone.model import units
from saltext.kvmclone.model.hints import Commands

_HEADINGS = {
    DANGER: "Data is at risk",
    UNSEEN: "Could not be looked at",
    PROBLEM: "Does not work, or is left over",
}


@dataclass(frozen=True)
class _Verdict:
    """How the fleet is, in the fewest words."""

    level: str
    title: str
    words: str


def page(picture: Picture) -> str:
    """Return the page that shows a picture; see :mod:`.picture`."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_visible
    )
    found = problems.problems(picture)
    soon, later = clones.endings(picture)
    hosts_shown = hosts.hosts(picture)
    html = environment.from_string(TEMPLATE).render(
        policy=_policy(),
        style=Markup(STYLE),  # noqa: S704 - our own
        script=Markup(SCRIPT),  # noqa: S704 - our own
        picture=picture,
        version=__version__,
        made=units.moment(picture.made),
        again=Commands().clone("report", picture.path),
        verdict=_verdict(found),
        problems=found,
        headings=_HEADINGS,
        endings=soon,
        later=later,
        hosts=hosts_shown,
        silent=sum(1 for host in hosts_shown if host.why),
        marks=bases.MARKS,
        matrix=bases.matrix(picture),
        steps=bases.steps(picture),
        titles=clones.TITLES,
        clones=clones.rows(picture),
        running=sum(1 for clone in picture.clones.values() if clone.state == "running"),
        lineage=lineage.lineage(picture),
        bars=times.bars(picture),
        stages=times.stages(picture),
        data=clones.data(picture),
    )
    return readable(html)


def _visible(value: Any) -> Any:
    """Return a value for the page; what is no text, or is safe already, stays as it is."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)


def _policy() -> str:
    """Return the policy by which a browser takes nothing but what stands in the page."""
    style, script = (_digest(text) for text in (STYLE, SCRIPT))
    return (
        f"default-src 'none'; style-src '{style}'; script-src '{script}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _verdict(found: Mapping[str, list[Problem]]) -> _Verdict:
    counts = {level: len(some) for level, some in found.items()}
    said = {
        DANGER: "data at risk",
        UNSEEN: "not looked at",
        PROBLEM: "to mend",
        NOTE: "worth knowing",
    }
    words = ", ".join(f"{count} {said[level]}" for level, count in counts.items())
    serious = sum(count for level, count in counts.items() if level != NOTE)
    if not serious:
        return _Verdict("good", "All is well", words or "no problem was found")
    level = "danger" if DANGER in counts else "warn"
    return _Verdict(level, f"{serious} problem{'' if serious == 1 else 's'}", words)

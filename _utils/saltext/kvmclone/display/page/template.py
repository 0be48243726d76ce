"""
Lay out the page itself, for Jinja2.

It is Python, since Salt's sync brings no other files (``include_pat`` in ``salt.utils.extmods``).
"""

from __future__ import annotations

#: How every page begins; a file that does not is none of ours, and is not overwritten.
HEAD = "<!doctype html>\n<!-- report of kvm_clone -->\n"

_MACROS = """\
{%- macro plural(count, thing) -%}
{{ count }} {{ thing }}{{ "" if count == 1 else "s" }}
{%- endmacro -%}

{%- macro bar(gauge, warns) -%}
<svg class="bar" viewBox="0 0 100 7" preserveAspectRatio="none" role="img" \
aria-label="{{ gauge.words }}"><rect class="whole" width="100" height="7"/>\
<rect class="part{{ " over" if warns and gauge.share > 1 else " full" if gauge.share > 0.9 }}" \
width="{{ ([[gauge.share, 0]|max, 1]|min * 100)|round(1) }}" height="7"/></svg>
{%- endmacro -%}

{%- macro command(line) -%}<code class="command">{{ line }}</code>{%- endmacro -%}

{%- macro finding(one) -%}
<article class="finding {{ one.level }}">
<p><b>{{ one.name }}</b>{% if one.host and one.host != one.name %} on {{ one.host }}{% endif %}
<span class="kind">{{ one.kind }}</span></p>
<p>{{ one.message }}</p>
{% for step in one.steps -%}
{% if step.words %}<p class="soft">{{ step.words }}</p>{% endif -%}
{% if step.command %}{{ command(step.command) }}{% endif %}
{% endfor -%}
</article>
{%- endmacro -%}

{%- macro branches(clones) -%}
{% set flat = clones|selectattr("clones")|list|length == 0 and clones|length > 4 -%}
<ul class="tree{{ " flat" if flat }}">
{% for clone in clones -%}
<li>{{ clone.name }} <span class="{{ "alarm" if clone.alarm else "soft" }}">{{ clone.words }}</span>
{%- for change in clone.changes %}<br><span class="soft">{{ change }}</span>{% endfor -%}
{% if clone.clones %}{{ branches(clone.clones) }}{% endif %}</li>
{% endfor -%}
</ul>
{%- endmacro -%}
"""

_TOP = """\
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>Cloned machines of {{ picture.master }}, {{ made }}</title>
<style>{{ style }}</style>
</head>
<body>
<header>
<h1>Cloned machines of {{ picture.master }}</h1>
<p class="soft">As they were on {{ made }}. This page does not change by itself.</p>
<p class="notice" id="stale" hidden>This page is <b></b> old. Make it again:
{{ command(again) }}</p>
<p>A <dfn>clone</dfn> is a virtual machine that was copied from another one, its <dfn>base</dfn>.
It runs on a <dfn>host</dfn>, a server with KVM, and is managed by Salt through its
<dfn>minion</dfn>, the program inside it that does what the <dfn>master</dfn> says. Commands on this
page are typed on the master.</p>
<ul class="tiles">
<li class="{{ verdict.level }}"><b>{{ verdict.title }}</b>{{ verdict.words }}</li>
<li><b>{{ plural(hosts|length, "host") }}</b>
{{ silent ~ " did not answer" if silent else "all answered" if hosts else "none is known" }}</li>
<li><b>{{ plural(clones|length, "clone") }}</b>{{ running }} running</li>
<li><b>{{ plural(picture.bases|length, "base") }}</b>known on the hosts</li>
</ul>
</header>
<nav><ul>
<li><a href="#problems">Problems</a></li>
<li><a href="#ending">Ending soon</a></li>
<li><a href="#hosts">Hosts</a></li>
<li><a href="#bases">Bases</a></li>
<li><a href="#clones">Clones</a></li>
<li><a href="#lineage">Lineage</a></li>
<li><a href="#times">Times</a></li>
</ul></nav>
<main>
"""

_PROBLEMS = """\
<section id="problems">
<h2>Problems</h2>
{% if not problems %}<p class="lead">Nothing is wrong, and every host answered.</p>{% else %}
<p class="lead">The worst first, each with the command to type next.</p>{% endif %}
{% for level, some in problems.items() %}
{% if level == "note" %}<details><summary>{{ plural(some|length, "note") }}</summary>
{% else %}<h3>{{ headings[level] }}</h3>{% endif %}
{% for one in some %}{{ finding(one) }}
{% endfor %}
{% if level == "note" %}</details>{% endif %}
{% endfor %}
</section>

<section id="ending">
<h2>Ending soon</h2>
<p class="lead">A clone may have a <dfn>ttl</dfn>, a time to live. These are past it, or will be
within three days. Whether the master then removes them by itself is a matter of its
configuration.</p>
{% if endings %}<table class="stack">
<thead><tr><th>Name</th><th>Host</th><th>Ends on</th><th>In</th><th>To remove it now</th></tr>
</thead>
<tbody>
{% for one in endings -%}
<tr><th scope="row">{{ one.name }}</th><td data-title="Host">{{ one.host }}</td>
<td data-title="Ends on">{{ one.when }}</td>
<td data-title="In">{% if one.left == "over" %}<span class="tag">over</span>\
{% else %}{{ one.left }}{% endif %}</td>
<td>{{ command(one.command) }}</td></tr>
{% endfor -%}
</tbody></table>
{% else %}<p>None.</p>{% endif %}
{% if later %}<p class="soft">{{ plural(later, "clone") }} end{{ "s" if later == 1 }} later.</p>\
{% endif %}
</section>
"""

_HOSTS = """\
<section id="hosts">
<h2>Hosts</h2>
<p class="lead"><dfn>Promised</dfn> is the memory and the CPUs that all clones there, and all other
machines that run there, may take. A host is chosen for a new clone by what it has promised, not by
what happens to be free. A <dfn>pool</dfn> is a place for disks. One that is in
<dfn>maintenance</dfn> gets no new clones.</p>
{% if hosts %}<table class="stack">
<thead><tr><th>Host</th><th>Memory promised</th><th>CPUs promised</th><th class="number">Clones</th>
<th>Pools</th><th>libvirt</th></tr></thead>
<tbody>
{% for host in hosts -%}
<tr><th scope="row">{{ host.label }}
{%- if host.maintenance %} <span class="tag">maintenance</span>{% endif -%}
{% for other in host.also %}<br><span class="soft">also {{ other }}</span>{% endfor %}</th>
{% if host.why %}<td colspan="5"><span class="tag">{{ host.why }}</span></td>{% else -%}
<td class="gauge" data-title="Memory promised">{{ host.memory.words }}
{{ bar(host.memory, true) }}</td>
<td data-title="CPUs promised">{{ host.cpus }}</td>
<td class="number" data-title="Clones">{{ host.clones }}
{%- if host.spares %}, {{ host.spares }} spare{% endif %}</td>
<td class="gauge">{% for name, pool in host.pools -%}
<div class="pool">{{ name }}: {{ pool.words }}{{ bar(pool, false) }}</div>
{%- endfor %}</td>
<td data-title="libvirt">{{ host.libvirt }}</td>{% endif %}</tr>
{% endfor -%}
</tbody></table>
{% else %}<p>None is known.</p>{% endif %}
</section>

<section id="bases">
<h2>Bases</h2>
<p class="lead">Which host has which base. <b>{{ marks.same }}</b>\u00a0the same content as on most
hosts, <b>{{ marks.other }}</b>\u00a0another content under the same name, <b>{{ marks.unknown }}\
</b>\u00a0not compared yet, <b>{{ marks.copying }}</b>\u00a0being copied, <b>{{ marks.missing }}\
</b>\u00a0not there, <b>{{ marks[""] }}</b>\u00a0no answer. The size is what it occupies.</p>
{% if picture.bases %}<div class="scroll"><table class="matrix">
<thead><tr><th>{{ matrix.corner }}</th>{% for title in matrix.columns %}<th>{{ title }}</th>\
{% endfor %}</tr></thead>
<tbody>
{% for title, cells in matrix.rows -%}
<tr><th scope="row">{{ title }}</th>
{%- for state, size in cells %}<td><span class="cell {{ state or "none" }}" \
title="{{ state or "no answer" }}">{{ marks.get(state, state) }}</span> \
<span class="soft">{{ size }}</span></td>{% endfor -%}
</tr>
{% endfor -%}
</tbody></table></div>
{% for wish, line in steps %}<p class="step">{{ wish }}:
{{ command(line) }}</p>
{% endfor %}
{% else %}<p>None is known.</p>{% endif %}
</section>
"""

_CLONES = """\
<section id="clones">
<h2>Clones</h2>
<p class="lead"><dfn>Stage</dfn> is how far the making came; at <dfn>ready</dfn> its minion
answered. <dfn>Copy</dfn> is how its disks were made: <dfn>full</dfn> stands alone, <dfn>quick</dfn>
holds only what differs from its base and needs it.</p>
{% if clones %}
<div class="filter" id="filter" hidden><input type="search" aria-label="Search" \
placeholder="Search: name, host, tag, address, uuid …"><span class="soft" id="count"></span>
<span class="soft">A name shows more of it, a title sorts.</span></div>
<div class="scroll"><table id="clone-table">
<thead><tr>{% for title, style in titles %}<th scope="col" class="{{ style }}">{{ title }}</th>\
{% endfor %}</tr></thead>
<tbody>
{% for clone in clones -%}
<tr><th scope="row" class="name">{{ clone.name }}</th>
{%- for cell, style in clone.cells -%}
<td{% if style %} class="{{ style }}"{% endif %}>
{%- if loop.last and cell %}<span class="tag{{ " danger" if cell == "failed" }}">{{ cell }}</span>
{%- else %}{{ cell }}{% endif %}</td>
{%- endfor %}</tr>
{% endfor -%}
</tbody></table></div>
{% else %}<p>There is no clone.</p>{% endif %}
</section>
"""

_LINEAGE = """\
<section id="lineage">
<h2>Lineage</h2>
<p class="lead">Which clone was made from which base, and what it occupies on disk.</p>
{% for base in lineage -%}
<details class="base"{{ " open" if base.is_open }}><summary><b>{{ base.name }}</b> \
<span class="{{ "alarm" if base.alarm else "soft" }}">{{ base.words }}</span></summary>
{% if base.clones %}{{ branches(base.clones) }}{% endif %}
</details>
{% else %}<p>Nothing was made from a base.</p>{% endfor %}
</section>

<section id="times">
<h2>Times</h2>
<p class="lead">How long the making of a clone took, stage by stage. Half of the clones took what is
shown, or less.</p>
{% if bars %}{% for bar in bars -%}
<div class="way"><p><b>{{ bar.strategy or "other" }}</b>
<span class="soft">{{ plural(bar.count, "clone") }}</span></p>
<svg class="stages" viewBox="0 0 1000 22" preserveAspectRatio="none" role="img" \
aria-label="{{ bar.strategy }}: {{ bar.total }}">{% for part in bar.parts %}\
<rect class="{{ part.stage }}" x="{{ part.begin }}" width="{{ part.width }}" height="22">\
<title>{{ part.words }}</title></rect>{% endfor %}</svg>
<p class="total">{{ bar.total }}</p></div>
{% endfor -%}
<table>
<thead><tr><th>Stage</th><th>What is done until then</th><th class="number">Usual</th>
<th class="number">Slowest</th><th class="wide">That was</th></tr></thead>
<tbody>
{% for row in stages -%}
<tr><th scope="row" class="stage"><span class="swatch {{ row.stage }}"></span>{{ row.stage }}</th>
<td>{{ row.work }}</td><td class="number">{{ row.usual }}</td>
<td class="number">{{ row.slowest }}</td><td class="wide">{{ row.name }}</td></tr>
{% endfor -%}
</tbody></table>
{% else %}<p>No clone was timed.</p>{% endif %}
</section>
</main>
<footer><p>Made by kvm_clone {{ version }} at {{ made }}, with {{ command(again) }}</p></footer>
<script type="application/json" id="data">{{ data|tojson }}</script>
<script>{{ script }}</script>
</body>
</html>
"""

TEMPLATE = _MACROS + HEAD + _TOP + _PROBLEMS + _HOSTS + _CLONES + _LINEAGE

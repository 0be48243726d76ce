"""Style the page, on a screen and on paper."""

from __future__ import annotations

STYLE = """
:root {
  --ink: #1f2933; --soft: #5b6875; --line: #dfe4ea; --paper: #ffffff; --ground: #f6f7f9;
  --blue: #2f6f9f; --red: #b3261e; --amber: #93600a; --green: #2e7350;
  color-scheme: light;
}
* { box-sizing: border-box; }
html { scroll-padding-top: 3.5rem; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main, header, footer { max-width: 76rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 1.75rem; }
h1 { margin: 0 0 .25rem; font-size: 1.6rem; line-height: 1.25; font-weight: 650; }
h2 { margin: 0 0 .35rem; font-size: 1.15rem; font-weight: 650; }
h3 { margin: 1.1rem 0 .4rem; font-size: .95rem; font-weight: 650; }
p { margin: 0 0 .6rem; max-width: 50rem; }
.soft, .lead { color: var(--soft); }
.lead { margin-bottom: .9rem; }
b, dfn { font-weight: 600; font-style: normal; }
.lead dfn { color: var(--ink); }
code, td.mono { font-family: ui-monospace, "SFMono-Regular", Menlo, "DejaVu Sans Mono", monospace; }
code { font-size: .86em; overflow-wrap: anywhere; }
td.mono { font-size: .9em; }
code.command {
  display: block; width: fit-content; max-width: 100%; margin: .3rem 0 0; padding: .3rem .6rem;
  background: #eef1f4; border-radius: 4px; white-space: pre-wrap; user-select: all;
}
td code.command { margin: 0; }
nav {
  position: sticky; top: 0; z-index: 3; background: var(--ground);
  border-bottom: 1px solid var(--line);
}
nav ul {
  display: flex; gap: .25rem 1.25rem; max-width: 76rem; margin: 0 auto; padding: .6rem 1.25rem;
  list-style: none; overflow-x: auto; white-space: nowrap;
}
a { color: var(--blue); text-decoration: none; }
a:hover { text-decoration: underline; }
section {
  margin: 1.1rem 0; padding: 1.1rem 1.25rem 1.2rem; background: var(--paper);
  border: 1px solid var(--line); border-radius: 8px;
}
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem;
  margin: 1.1rem 0; padding: 0; list-style: none;
}
.tiles li {
  padding: .7rem 1rem; background: var(--paper); border: 1px solid var(--line);
  border-radius: 8px; color: var(--soft);
}
.tiles b { display: block; color: var(--ink); font-size: 1.5rem; line-height: 1.3; }
.tiles .danger b { color: var(--red); }
.tiles .warn b { color: var(--amber); }
.tiles .good b { color: var(--green); }
.notice { padding: .5rem .8rem; background: #fdf4e3; border-radius: 6px; color: var(--amber); }
.finding { padding: .65rem 0 .65rem .9rem; border-left: 4px solid var(--line); }
.finding + .finding { margin-top: .55rem; }
.finding p { margin: 0; overflow-wrap: anywhere; }
.finding.danger { border-color: var(--red); }
.finding.unseen, .finding.problem { border-color: #d69a2d; }
.finding.note { border-color: #9fb3c4; }
.kind { color: var(--soft); font-size: .88em; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .4rem .7rem .4rem 0; text-align: left; vertical-align: top; }
thead th {
  border-bottom: 1px solid #c3cad2; color: var(--soft); font-size: .85rem; font-weight: 600;
  white-space: nowrap;
}
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody th { font-weight: 600; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; padding-right: 1.6rem; white-space: nowrap; }
thead button {
  all: unset; cursor: pointer; border-radius: 3px;
}
thead button:focus-visible, .name button:focus-visible, input:focus-visible, summary:focus-visible {
  outline: 2px solid var(--blue); outline-offset: 2px;
}
thead button::after { content: "\\2195"; padding-left: .3em; color: #b3bcc5; }
th[aria-sort="ascending"] button::after { content: "\\2191"; color: var(--blue); }
th[aria-sort="descending"] button::after { content: "\\2193"; color: var(--blue); }
.name button {
  all: unset; cursor: pointer; color: var(--blue); font-weight: 600; overflow-wrap: anywhere;
}
.name { min-width: 6rem; }
.name button:hover { text-decoration: underline; }
.more > td { padding: .2rem 0 .9rem 1.1rem; border-top: 0; }
.more dl { display: grid; grid-template-columns: 7rem 1fr; gap: .15rem .8rem; margin: 0; }
.more dt { color: var(--soft); }
.more dd { margin: 0; white-space: pre-line; overflow-wrap: anywhere; }
.tag {
  display: inline-block; padding: 0 .5em; border-radius: 3px; background: #fdf4e3;
  color: var(--amber); font-size: .85em; font-weight: 600; white-space: nowrap;
}
.tag.danger { background: #fbeceb; color: var(--red); }
.state.on { color: var(--green); }
.state.off { color: var(--soft); }
.filter {
  display: flex; flex-wrap: wrap; gap: .3rem 1rem; align-items: baseline; margin: 0 0 .8rem;
}
.filter[hidden] { display: none; }
input[type="search"] {
  width: min(26rem, 100%); padding: .4rem .7rem; border: 1px solid #c3cad2; border-radius: 5px;
  background: var(--paper); color: inherit; font: inherit;
}
svg.bar { display: block; width: 100%; height: 7px; margin: .3rem 0; }
svg.bar .whole { fill: #e6eaee; }
svg.bar .part { fill: #6f9dbf; }
svg.bar .part.full { fill: #d69a2d; }
svg.bar .part.over { fill: var(--red); }
.gauge { min-width: 10rem; }
.pool + .pool { margin-top: .5rem; }
.matrix th, .matrix td { white-space: nowrap; }
.matrix { width: auto; }
.matrix th, .matrix td { padding-right: 1.6rem; }
.matrix tr > :first-child { position: sticky; left: 0; background: var(--paper); }
.step { margin: .9rem 0 0; }
.cell { font-weight: 600; }
.cell.same { color: var(--green); }
.cell.other { color: var(--red); }
.cell.unknown, .cell.copying { color: var(--amber); }
.cell.missing, .cell.none { color: var(--soft); font-weight: 400; }
.tree {
  margin: .2rem 0 0; padding: 0 0 0 1rem; list-style: none; border-left: 1px solid var(--line);
}
.tree > li { padding: .12rem 0; overflow-wrap: anywhere; break-inside: avoid; }
.tree.flat { columns: 19rem; column-gap: 1.5rem; column-rule: 1px solid var(--line); }
.alarm { color: var(--red); }
details > summary { cursor: pointer; }
#problems details { margin-top: 1.1rem; }
#problems summary { margin-bottom: .4rem; }
details.base + details.base { margin-top: .7rem; }
.stages { display: block; width: 100%; height: 22px; }
.planned { fill: #b9c2cb; background: #b9c2cb; }
.cloned { fill: #3f7cac; background: #3f7cac; }
.booted { fill: #8bb8d8; background: #8bb8d8; }
.addressed { fill: #d9a441; background: #d9a441; }
.enrolled { fill: #8c7aa9; background: #8c7aa9; }
.ready { fill: #5d9e7e; background: #5d9e7e; }
.stage { white-space: nowrap; }
.swatch {
  display: inline-block; width: .8em; height: .8em; margin-right: .5em; border-radius: 2px;
}
.way {
  display: grid; grid-template-columns: 10rem 1fr 4.5rem; gap: .2rem 1rem; align-items: center;
  margin: .5rem 0;
}
.way p { margin: 0; }
.way .total { text-align: right; }
footer { padding-bottom: 2.5rem; color: var(--soft); font-size: .9rem; }
@media screen and (max-width: 47rem) {
  body { font-size: 14px; }
  section { margin: .8rem -.5rem; padding: .9rem; }
  .wide { display: none; }
  .tag { white-space: normal; }
  thead th { white-space: normal; }
  #clone-table thead th { white-space: nowrap; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
  .way { grid-template-columns: 1fr auto; }
  .way .stages { grid-column: 1 / -1; order: 1; }
  th, td, td.number, th.number { padding-right: .6rem; }
  .stack thead { display: none; }
  .stack tr, .stack td, .stack th { display: block; padding-right: 0; border-top: 0; }
  .stack tbody tr { padding: .4rem 0; }
  .stack tbody tr + tr { border-top: 1px solid var(--line); }
  .stack tbody tr + tr > * { border-top: 0; }
  .stack td { padding: .1rem 0; text-align: left; }
  .stack td[data-title]:not(:empty)::before {
    content: attr(data-title) ": "; color: var(--soft); font-size: .9em;
  }
  .more dl { grid-template-columns: 1fr; }
}
@media print {
  @page { margin: 14mm; }
  :root { font-size: 12px; }
  body { background: #fff; font-size: 9pt; }
  table, thead th { font-size: 8pt; }
  .tiles { grid-template-columns: repeat(4, 1fr); }
  th, td { padding: .25rem .5rem .25rem 0; }
  .gauge { min-width: 0; }
  main, header, footer { max-width: none; padding: 0; }
  nav, .filter, #stale { display: none !important; }
  section { margin: 0 0 1.2rem; padding: 0; border: 0; }
  h2, h3, .lead { break-after: avoid; }
  tr, .finding, .tiles li { break-inside: avoid; }
  thead { display: table-header-group; }
  thead button::after { content: ""; }
  .scroll { overflow: visible; }
  .name button { color: inherit; }
  svg, .swatch, .tag, code.command { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

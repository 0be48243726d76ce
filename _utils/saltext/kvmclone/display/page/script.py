"""Let the page sort, search, show more and tell its own age, where a browser runs scripts."""

from __future__ import annotations

SCRIPT = """
"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);

  function aged() {
    const hours = (Date.now() / 1000 - data.made) / 3600;
    if (hours < 1) return;
    const days = Math.floor(hours / 24);
    const words = days > 1 ? days + " days" : Math.floor(hours) + " h";
    const stale = document.getElementById("stale");
    stale.querySelector("b").textContent = words;
    stale.hidden = false;
  }

  function details(pairs, columns) {
    const row = document.createElement("tr");
    row.className = "more";
    const cell = row.insertCell();
    cell.colSpan = columns;
    const list = cell.appendChild(document.createElement("dl"));
    for (const [term, text] of pairs) {
      list.appendChild(document.createElement("dt")).textContent = term;
      list.appendChild(document.createElement("dd")).textContent = text;
    }
    return row;
  }

  function clones(table) {
    const body = table.tBodies[0];
    const heads = Array.from(table.tHead.rows[0].cells);
    const items = Array.from(body.rows, function (row, n) {
      const known = data.clones[n];
      const more = known.more.map(function (pair) { return pair[1]; }).join(" ");
      const text = (row.textContent + " " + more).toLowerCase();
      return { row: row, ranks: known.ranks, pairs: known.more, text: text, more: null };
    });

    for (const item of items) {
      const cell = item.row.cells[0];
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = cell.textContent;
      button.setAttribute("aria-expanded", "false");
      button.addEventListener("click", function () {
        if (item.more) {
          item.more.remove();
          item.more = null;
        } else {
          item.more = details(item.pairs, heads.length);
          item.row.after(item.more);
        }
        button.setAttribute("aria-expanded", String(item.more !== null));
      });
      cell.replaceChildren(button);
    }

    function sort(column, down) {
      items.sort(function (one, other) {
        const a = one.ranks[column], b = other.ranks[column];
        if (a === null || b === null) return (a === null) - (b === null);
        return (a - b) * (down ? -1 : 1) || one.ranks[0] - other.ranks[0];
      });
      for (const item of items) {
        body.append(item.row);
        if (item.more) body.append(item.more);
      }
    }

    heads.forEach(function (head, column) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", function () {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const one of heads) one.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(column, down);
      });
    });
    heads[0].setAttribute("aria-sort", "ascending");

    const filter = document.getElementById("filter");
    const count = document.getElementById("count");
    function search() {
      const words = filter.querySelector("input").value.toLowerCase().split(/\\s+/);
      let shown = 0;
      for (const item of items) {
        const fits = words.every(function (word) { return item.text.includes(word); });
        item.row.hidden = !fits;
        if (item.more) item.more.hidden = !fits;
        shown += fits;
      }
      count.textContent = shown + " of " + items.length;
    }
    filter.hidden = false;
    filter.querySelector("input").addEventListener("input", search);
    search();
  }

  window.addEventListener("beforeprint", function () {
    for (const one of document.querySelectorAll("details")) one.open = true;
  });
  aged();
  const table = document.getElementById("clone-table");
  if (table) clones(table);
})();
"""

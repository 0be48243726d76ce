"""Text fits the terminal, and what is to be pasted stays whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.display import text
from saltext.kvmclone.display.text import Column

COLUMNS = (Column("NAME", 4), Column("SIZE", 4, right=True), Column("WHY", 5))


def test_a_table_has_a_heading_and_columns() -> None:
    assert text.table(COLUMNS, [("a", "1", "so"), ("bcd", "1000", "")], 80) == [
        "NAME  SIZE  WHY",
        "a        1  so",
        "bcd   1000",
    ]


@given(st.lists(st.tuples(*[st.text("abc ", max_size=60)] * 3), min_size=1), st.integers(17, 120))
def test_a_table_is_never_wider_than_the_terminal(
    rows: list[tuple[str, str, str]], width: int
) -> None:
    assert max(map(len, text.table(COLUMNS, rows, width))) <= width


@given(st.lists(st.tuples(*[st.text("abc", max_size=9)] * 3), min_size=1))
def test_where_there_is_room_nothing_is_cut(rows: list[tuple[str, str, str]]) -> None:
    wide = text.natural_width(COLUMNS, rows)
    assert "…" not in "".join(text.table(COLUMNS, rows, wide))


def test_a_cell_is_one_line() -> None:
    assert text.table(COLUMNS, [("a", "1", "so\n what")], 80)[1] == "a        1  so what"


def test_lines_of_a_script_stay_lines() -> None:
    assert text.wrapped("Reading lists...\nE: no such package\n'web1' was removed.", 80, "  ") == [
        "  Reading lists...",
        "  E: no such package",
        "  'web1' was removed.",
    ]


def test_what_is_cut_shows_that_it_was() -> None:
    assert text.table(COLUMNS, [("a" * 30, "1", "b" * 30)], 30) == [
        "NAME        SIZE  WHY",
        "aaaaaaaaa…     1  bbbbbbbbbbb…",
    ]


def test_of_a_long_path_the_file_stays() -> None:
    assert text.cut_path("/var/lib/libvirt/images/web1-vda.qcow2", 20) == "…/web1-vda.qcow2"
    assert text.cut_path("/a/b", 20) == "/a/b"


def test_each_command_of_a_hint_stands_in_a_line_of_its_own_and_whole() -> None:
    long = "salt-run kvmclone.destroy " + "a-long-name " * 10
    assert text.hint(f"Remove it: {long}   Or: salt-run kvmclone.list") == [
        f"  Hint: Remove it: {long.strip()}",
        "        Or: salt-run kvmclone.list",
    ]
    assert text.hint("") == []


def test_keys_without_a_value_take_no_line() -> None:
    rows = [("state", ["running"]), ("tags", [""]), ("disks", ["vda", "vdb"]), ("base", [])]
    assert text.pairs(rows) == ["  state  running", "  disks  vda", "         vdb"]


def test_what_nobody_would_see_is_written_out() -> None:
    assert text.visible("web\u202e1\x1b\u200b ü\n") == "web\\u202e1\\u001b\\u200b ü\n"


def test_a_hint_is_one_thing_to_do_after_the_other() -> None:
    told = "See it: virsh net-list   Then: salt-run kvmclone.create web web1"
    assert text.hint_parts(told) == ["See it: virsh net-list", told.partition("   ")[2]]
    assert text.hint_parts("") == []

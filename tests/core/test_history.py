"""`metrics.csv` is read with the logged numbers even if a spreadsheet program saved it, or it is rejected."""

import os

import pytest

from genbench.core.history import Unreadable, read

COLUMNS = ["images_seen", "generator/adversarial", "generator/lr", "val/fid"]
ROWS = [
    ["64", "0.693147", "0.0002", ""],
    ["64", "", "", "12.5"],
    ["2000", "-1.5", "0.0002", ""],
    ["100000", "1.5e-05", "0.0002", "nan"],
]
EXPECTED = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]


def text(delimiter=",", end="\n", decimal=".", quote="", rows=ROWS, columns=COLUMNS):
    table = [columns, *([cell.replace(".", decimal) for cell in row] for row in rows)]
    return "".join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) + end for row in table)


def numbers(rows):
    return [{name: value if value in ("", "nan") else float(value) for name, value in row.items()} for row in rows]


def written(tmp_path, data):
    path = tmp_path / "metrics.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read(path)


def test_a_file_as_it_was_written_is_read_without_a_change(tmp_path):
    found = written(tmp_path, text())
    assert (found.columns, found.rows) == (COLUMNS, EXPECTED)
    assert not (found.changes or found.doubts or found.torn)


SPREADSHEETS = {
    "Excel, Germany": ("\ufeff" + text(";", "\r\n", ",")).encode(),
    "Excel, United States": text(",", "\r\n").encode(),
    "Excel for Mac": text(",", "\r").encode(),
    "Excel's Unicode text": text("\t", "\r\n", ",").encode("utf-16"),
    "big-endian": ("\ufeff" + text("\t", "\r\n")).encode("utf-16-be"),
    "no byte order mark": text(";", "\r\n", ",").encode("utf-16-le"),
    "UTF-32": text().encode("utf-32"),
    "everything quoted": text(quote='"').encode(),
    "quoted decimal commas": text(decimal=",", quote='"').encode(),
    "a hint for Excel": ("sep=;\r\n" + text(";", "\r\n")).encode(),
    "empty lines": text().replace("\n", "\n\n").encode(),
    "lines of empty cells": (text(";") + ";;;\n;;;\n").encode(),
    "empty columns": text(";", ";;\n").encode(),
    "empty cells left out at the end of rows": text(",", "\r\n").replace(",\r\n", "\r\n").encode(),
    "no end of the last line": text(";", "\r\n")[:-2].encode(),
    "each line in one cell": "".join(f'"{line}"\n' for line in text().splitlines()).encode(),
    "images with an exponent": text(",", "\r\n").replace("100000", "1E+05").encode(),
    "images with decimals": text(",", "\n").replace("\n2000,", "\n2000.0,").encode(),
    "images with decimal commas": text(";", "\n", ",").replace("\n2000;", "\n2000,0;").encode(),
    "spaces": text(" , ").encode(),
    "the name of images as a title": text().replace("images_seen", "Images seen").encode(),
    "zeros after a power failure": text().encode() + b"\0" * 4096,
}


@pytest.mark.parametrize("kind", SPREADSHEETS)
def test_a_file_saved_by_a_spreadsheet_program_is_read_with_the_logged_numbers(tmp_path, kind):
    found = written(tmp_path, SPREADSHEETS[kind])
    assert found.columns == COLUMNS and not found.doubts
    assert numbers(found.rows) == numbers(EXPECTED) or str(numbers(found.rows)) == str(numbers(EXPECTED))
    assert [row["images_seen"] for row in found.rows] == ["64", "64", "2000", "100000"]
    assert found.changes or found.torn or kind == "spaces"  # which do not matter


def test_columns_that_moved_and_columns_that_were_added_are_kept(tmp_path):
    found = written(tmp_path, "note;val/fid;images_seen;größe\r\ngood;1,5;64;3\r\n;2,5;128;\r\n".encode("cp1252"))
    assert found.columns == ["images_seen", "note", "val/fid", "größe"] and not found.doubts
    assert found.rows[0] == {"images_seen": "64", "note": "good", "val/fid": "1.5", "größe": "3"}


def test_rows_in_another_order_are_put_in_order(tmp_path):
    found = written(tmp_path, "images_seen,a/b\n128,2\n64,1\n192,3\n")
    assert [row["a/b"] for row in found.rows] == ["1", "2", "3"] and found.changes and not found.doubts


@pytest.mark.parametrize(
    "torn", ["3", "30", "3000", "3000,0.6", "3000,0.6,0.0002", "3000,0.6,0.0002,", "3000,0.6,0.0002,7", "\0\0\0"]
)
def test_a_last_line_without_a_line_break_is_dropped(tmp_path, torn):
    found = written(tmp_path, text() + torn)
    assert found.rows == EXPECTED and found.torn and not found.doubts


def test_an_incomplete_last_row_in_a_spreadsheets_file_is_dropped(tmp_path):
    found = written(tmp_path, text(";", "\r\n", ",") + "3000;0,6")
    assert len(found.rows) == 4 and found.torn and not found.doubts


DOUBTS = {
    "no images": text().replace("images_seen", "step"),
    "a date in place of a number": text(";").replace("-1.5", "01. Mai"),
    "dates alone in a column": text(";", rows=[["64", "01. Mai", "0", ""]]),
    "too narrow a column": text(";").replace("0.693147", "#####"),
    "a percentage": text(",", "\r\n").replace("-1.5", "95%"),
    "commas and points": text(";").replace("-1.5", "-1,5"),
    "thousands": text(";", "\r\n").replace("\n2000", "\n2.000"),
    "thousands, quoted": text(quote='"').replace('"2000"', '"2,000"'),
    "thousands and decimals": text(";", decimal=",").replace("-1,5", "1.234,5"),
    "decimal commas between commas": text(decimal=","),
    "images that were rounded": text(",", "\r\n").replace("100000", "2E+03"),
    "half an image": text(",", "\r\n").replace("\n2000,", "\n2000.5,"),
    "negative images": text().replace("\n2000,", "\n-2000,"),
    "a row of sums": text(";") + ";3;;\n",
    "a value beside the table": text(";").replace("12.5\n", "12.5;see mail\n"),
    "a row of a writer that was killed, and another": text() + "3000,0.6\n4000,0.5,0.0002,\n",
}


@pytest.mark.parametrize("kind", DOUBTS)
def test_values_that_may_differ_from_the_logged_values_are_reported(tmp_path, kind):
    assert written(tmp_path, DOUBTS[kind]).doubts


NO_TABLES = {
    "a workbook": b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0" + bytes(range(256)) * 8,
    "bytes": bytes(range(128, 256)) * 50,
    "zeros inside": text().encode().replace(b"2000", b"\0\0\0\0"),
    "an open quote": b'images_seen,a/b\n1,"2\n2,3\n',
    "an endless cell": b'images_seen,a/b\n1,"' + b"x" * 200_000 + b'"\n',
    "a name twice": b"images_seen,a/b,a/b\n1,2,3\n",
}


@pytest.mark.parametrize("kind", NO_TABLES)
def test_files_without_a_table_are_refused_with_the_reason(tmp_path, kind):
    with pytest.raises(Unreadable, match="text|row|name"):
        written(tmp_path, NO_TABLES[kind])


def test_folders_and_pipes_are_refused_without_waiting(tmp_path):
    assert read(tmp_path / "metrics.csv").rows == []
    os.mkfifo(tmp_path / "metrics.csv")
    with pytest.raises(Unreadable, match="not a regular file"):
        read(tmp_path / "metrics.csv")
    with pytest.raises(Unreadable, match="not a regular file"):
        read(tmp_path)


@pytest.mark.parametrize("data", ["", "\n", "images_seen", "images_seen,a/b\n", "images_seen\n64\n"])
def test_a_file_without_values_is_read_as_empty(tmp_path, data):
    found = written(tmp_path, data)
    assert not found.doubts and all(not any(v for k, v in row.items() if k != "images_seen") for row in found.rows)

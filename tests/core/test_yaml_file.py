"""YAML values are read with the intended types, or rejected with the line."""

import pytest
import yaml

from genbench.cli import configs
from genbench.core.errors import UserError
from genbench.core.yaml_file import parse, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1e6", 1e6), ("1E+3", 1e3), (".5", 0.5), ("5.", 5.0), ("-2.5e-1", -0.25), ("1_000", 1000),
        ("0x1F", 31), ("-7", -7), ("0", 0), ("+3", 3), (".inf", float("inf")),
        ("yes", True), ("off", False), ("null", None), ("~", None), ("", None),
        ("010", "010"), ("1:30", "1:30"), ("0:05:00", "0:05:00"), ("2026-01-31", "2026-01-31"), ("50k", "50k"),
        ("'8'", "8"), ("10%", "10%"), ("1.2.3", "1.2.3"), ("e5", "e5"), ("-", None), ("0o17", "0o17"),
    ],
)  # fmt: skip
def test_values_have_the_types_that_were_written(text, value):
    if text == "-":
        assert parse("a:\n-", "x") == {"a": [None]}
        return
    found = parse(f"a: {text}", "x")["a"]
    assert found == value and type(found) is type(value)


def test_merge_keys_and_aliases_work():
    assert parse("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: *a", "f") == {
        "a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 1, "y": 2}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml, line 3: 'a' is set twice, first in line 1. Keep one of the two."),
        ("x:\n  - {a: 1}\n  - {b: 1,\n     b: 2}", "f.yaml, line 4: 'b' is set twice, first in line 3"),
        ("'a': 1\na: 3", "f.yaml, line 2: 'a' is set twice"),
        ("a:\n  b: " + "9" * 301, "f.yaml, line 2: a whole number of 301 digits is too large"),
        ("1: a\n0x1: b", "line 2: '0x1' is set twice"),
        ("b: {<<: {x: 1, x: 2}}", "f.yaml, line 1: 'x' is set twice"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a", "f.yaml, line 4: '<<' is set twice"),
        ("a: [", "f.yaml is not YAML: while parsing a flow node did not find expected node content (line 2, column 1)"),
        ("a: *b", "f.yaml is not YAML: found undefined alias (line 1, column 4)"),
        ("a: 1\n---\nb: 2", "f.yaml is not YAML: expected a single document"),
        ("a: \x00", "f.yaml is not YAML: unacceptable character"),
        ("a: !mine x", "f.yaml, line 1: the YAML tag `!mine` is not supported"),
        ("a: !!binary aGk=", "f.yaml, line 1: the YAML tag `!!binary` is not supported. Use a plain value."),
        ("a: !!int x", "f.yaml is not YAML: invalid literal"),
        ("a: !!bool x", "f.yaml is not YAML"),
        ("? [1, 2]\n: 3", "f.yaml, line 1: the name of a setting must be a word or a number"),
        ("&a [*a]", "f.yaml, line 1: an alias (`*name`) is used inside the value that it refers to"),
        ("<<: 5", "f.yaml is not YAML: while constructing a mapping"),
        ("[" * 60 + "]" * 60, "f.yaml, line 1: settings are nested more than 50 levels deep"),
        ("a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
            f"{x}: &{x} [{', '.join(['*' + y] * 8)}]\n" for y, x in zip("abcdef", "bcdefg", strict=True)),
         "its aliases expand to more than 1,000,000 values"),
    ],
)  # fmt: skip
def test_ambiguous_or_invalid_yaml_is_rejected_with_its_line(text, said):
    with pytest.raises(UserError) as error:
        parse(text, "f.yaml")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"- a\n", "f.yaml is not a file of settings: it contains a list; expected settings"),
        (b"word\n", "it contains text; expected settings"),
        (b"3\n", "it contains a number; expected settings"),
        (b"a: 1\nb: \xff\xfe\n", "f.yaml is not YAML: line 2 is not text in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00", "f.yaml is not YAML: line 1 is not text in UTF-8"),
        ("a: 1".encode("utf-16"), "is not text in UTF-8"),
    ],
)
def test_a_file_without_settings_is_reported(tmp_path, data, said):
    (tmp_path / "f.yaml").write_bytes(data)
    with pytest.raises(UserError) as error:
        read(tmp_path / "f.yaml")
    assert said in str(error.value) and "f.yaml" in str(error.value)


def test_an_empty_file_a_byte_order_mark_and_a_missing_file(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"# nothing\n")
    assert read(path) == {}
    path.write_bytes(b"\xef\xbb\xbfa: \xc3\xa4\n")
    assert read(path) == {"a": "ä"}
    with pytest.raises(UserError, match=r"g\.yaml cannot be read: No such file"):
        read(tmp_path / "g.yaml")


@pytest.mark.parametrize("path", sorted(configs.folder().rglob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_files_have_the_same_values_for_other_yaml_readers(path):
    assert read(path) == (yaml.safe_load(path.read_text()) or {})

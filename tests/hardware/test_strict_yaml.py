"""The traps of YAML, one by one."""

import pytest

from cooptim.hardware.strict_yaml import MAX_BYTES, StrictYamlError, read_strict


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("12", 12), ("-0.5", -0.5), ("+2", 2), ("true", True), ("1.5E+2", 150.0), ("'12'", "12")],
)
def test_numbers_and_booleans_are_read_as_what_they_look_like(text, value):
    read = read_strict(f"a: {text}".encode())["a"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "text", ["no", "on", "yes", "010", "0x1f", "1:30", ".nan", ".inf", "1_000", "2026-11-23", "1."]
)
def test_what_yaml_would_guess_stays_text(text):
    assert read_strict(f"a: {text}".encode()) == {"a": text}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "line 2, column 1: found the key 'a' a second time"),
        ("a: &x 1\nb: *x", "anchor or alias 'x'"),
        ("a: !!python/object/apply:os.getcwd []", "tag"),
        ("a: !!int 3", "tag"),
        ("<<: {a: 1}", "merge"),
        ("a: 1e999", "overflows"),
        ("a:", "empty value"),
        ("a: null", "empty value"),
        ("- 1", "found list at the top"),
        ("", "found NoneType at the top"),
        ("a: [1", "line 1"),
        ("a: 1\n---\na: 2", "not YAML"),
        ("? [1, 2]\n: 3", "key that is no text"),
        ("a: " + "[" * 40 + "]" * 40, "nesting deeper"),
    ],
)
def test_a_trap_is_refused_with_its_place(text, said):
    with pytest.raises(StrictYamlError, match=said.replace("'", ".").replace("[", ".")):
        read_strict(text.encode())


def test_an_alias_bomb_is_refused_at_the_first_anchor():
    bomb = "a: &a [x, x]\n" + "\n".join(f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    with pytest.raises(StrictYamlError, match="anchor"):
        read_strict(bomb.encode())


def test_a_huge_or_binary_file_is_refused():
    with pytest.raises(StrictYamlError, match="at most"):
        read_strict(b"#" * (MAX_BYTES + 1))
    with pytest.raises(StrictYamlError, match="UTF-8"):
        read_strict(b"a: \xff\xfe")

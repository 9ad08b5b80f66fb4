"""Machine files for the tests of mechanisms: Envision with another section or other lines."""

import importlib.resources

ENVISION = (importlib.resources.files("cooptim.hardware") / "machines" / "envision.yaml").read_text()


def number(value, unit="1"):
    """A number of a file as text."""
    return f'{{value: {value}, unit: "{unit}", interval: [{value}, {value}], assumed: true, source: "for a test"}}'


def choice(value):
    """A choice of a file as text."""
    return f'{{value: {value}, assumed: true, source: "for a test"}}'


def with_mechanisms(folder, sections, *changes, text=ENVISION):
    """Path of a file with these mechanisms {name: {field: text}}, after changes (old, new) of its text."""
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    lines = ["mechanisms:"]
    for name, fields in sections.items():
        lines += [f"  {name}:", *(f"    {field}: {entry}" for field, entry in fields.items())]
    path = folder / "mine.yaml"
    path.write_text(text + "\n" + "\n".join(lines) + "\n")
    return path

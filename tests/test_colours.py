"""The colours of the visual system: every pair that a page uses can be read in both themes."""

import re
from pathlib import Path
from typing import Final

import pytest
from django.conf import settings

TOKENS: Final = Path(settings.BASE_DIR, "instances/static/instances/styles/tokens.css").read_text(encoding="utf-8")
SHEETS: Final = sorted(Path(settings.BASE_DIR, "instances/static/instances/styles").glob("*.css"))
# Text → the grounds that it stands on.
TEXTS: Final = {
    "ink": ("ground", "surface", "surface-hover", "accent-ground", "rest-ground"),
    "ink-quiet": ("ground", "surface", "surface-hover"),
    "accent": ("ground", "surface", "surface-hover", "accent-ground"),
    "on-accent": ("accent",),
    "on-danger": ("danger", "danger-hover"),
    "good": ("good-ground", "surface", "ground"),
    "moving": ("moving-ground", "surface", "ground"),
    "bad": ("bad-ground", "surface", "ground"),
    "rest": ("rest-ground", "surface", "ground"),
}
# What has to be seen, and not read: outlines of controls, bars, lines of a chart.
SIGNS: Final = ("outline", "good-solid", "moving-solid", "bad-solid", *(f"series-{number}" for number in range(1, 7)))


def find_colours(theme: int) -> dict[str, str]:
    found = re.findall(r"--([\w-]+): (?:light-dark\((#\w{6}), (#\w{6})\)|(#\w{6}));", TOKENS)
    return {name: (light, dark)[theme] or both for name, light, dark, both in found}


def measure_light(colour: str) -> float:
    """Return the relative luminance of a colour, as WCAG defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def measure_contrast(one: str, other: str) -> float:
    dark, light = sorted((measure_light(one), measure_light(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_measured_as_wcag_defines_it() -> None:
    assert measure_contrast("#000000", "#ffffff") == pytest.approx(21)
    assert measure_contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_a_contrast_of_at_least_4_5(theme: int) -> None:
    colours = find_colours(theme)
    pairs = [(text, ground) for text, grounds in TEXTS.items() for ground in grounds]

    contrasts = {pair: measure_contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}

    assert {pair: round(contrast, 2) for pair, contrast in contrasts.items() if contrast < 4.5} == {}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_sign_has_a_contrast_of_at_least_3(theme: int) -> None:
    colours = find_colours(theme)

    contrasts = {sign: measure_contrast(colours[sign], colours["surface"]) for sign in SIGNS}

    assert {sign: round(contrast, 2) for sign, contrast in contrasts.items() if contrast < 3} == {}


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda path: path.name)
def test_style_sheet_takes_its_colours_from_the_tokens(sheet: Path) -> None:
    text = re.sub(r"/\*.*?\*/", "", sheet.read_text(encoding="utf-8"), flags=re.DOTALL)

    assert sheet.name == "tokens.css" or re.findall(r"#[0-9a-f]{3,8}\b(?=[;,) ])", text) == []


def test_style_sheets_use_only_tokens_that_exist() -> None:
    text = "\n".join(sheet.read_text(encoding="utf-8") for sheet in SHEETS)

    used = set(re.findall(r"var\(--([\w-]+)", text))
    assert used <= set(re.findall(r"--([\w-]+):", text))


def test_every_colour_is_checked() -> None:
    surfaces = {ground for grounds in TEXTS.values() for ground in grounds} | {"line", "rest-solid"}

    assert set(find_colours(0)) <= surfaces | set(TEXTS) | set(SIGNS)

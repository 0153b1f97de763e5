"""The documentation matches the code: settings, keys, packages, modules, files."""

import re
from pathlib import Path

import pytest

from instances import redis_client

ROOT = Path(__file__).resolve().parent.parent
DOCS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_setting_is_documented_and_no_other() -> None:
    in_code = set(re.findall(r'\benv\.\w+\(\s*"([A-Z_]+)"', read("novita_site/settings.py")))
    in_tables = [line.split("|")[1] for line in read("docs/settings.md").splitlines() if line.startswith("| `")]

    assert {name for cell in in_tables for name in re.findall(r"`([A-Z_]+)`", cell)} == in_code


def test_documented_defaults_are_those_of_the_code() -> None:
    literal = (
        r'\benv\.(?:integer|seconds|text|host|hosts|ports|novita_url|redis_url)\("([A-Z_]+)", (?:"(.*?)"|(\d+))[,)]'
    )
    in_code = {name: text or number for name, text, number in re.findall(literal, read("novita_site/settings.py"))}
    in_tables: dict[str, str] = {}
    for line in read("docs/settings.md").splitlines():
        if line.startswith("| `"):
            names, defaults = (re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:3])
            in_tables.update(zip(names, defaults, strict=False))

    assert {name: in_tables.get(name) for name in in_code} == in_code


def test_every_redis_key_is_on_the_map() -> None:
    tag = redis_client._TAG
    names = {value.removeprefix(f"{tag}:") for value in vars(redis_client).values() if str(value).startswith(f"{tag}:")}

    section = read("docs/architecture.md").partition("## Redis keys")[2].partition("\n## ")[0]
    on_the_map = {re.split("[<…]", key)[0] for key in re.findall(r"`([a-z][\w:<>…-]*)`", section)}

    assert {name.rstrip(":") for name in names} <= {name.rstrip(":") for name in on_the_map}


def list_modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


def find_bullets(folder: str) -> list[list[str]]:
    """Return the names in each bullet of the map's section about a folder; a bullet begins with what it is about."""
    section = read("docs/architecture.md").partition(f"### `{folder}/`")[2].partition("\n### ")[0]
    return [re.findall(r"`([^`]+)`", bullet) for bullet in section.split("\n- ")[1:]]


PACKAGES = {names[0]: names for names in find_bullets("instances") if names[0].endswith("/")}


@pytest.mark.parametrize("package", PACKAGES)
def test_map_lists_exactly_the_modules_of_a_package(package: str) -> None:
    listed = {name for name in PACKAGES[package] if re.fullmatch(r"\w+", name)}

    assert listed == list_modules(ROOT / "instances" / package)


def test_map_lists_exactly_the_packages_and_modules_of_the_app() -> None:
    listed = {name for names in find_bullets("instances") for name in names if re.fullmatch(r"\w+(/|\.py)", name)}
    folders = {path.parent for path in (ROOT / "instances").rglob("*.py")} - {ROOT / "instances"}
    packages = {f"{folder.relative_to(ROOT / 'instances').parts[0]}/" for folder in folders}

    # The scripts and styles have packages of their own, and commands are in a folder of a folder.
    assert listed - {"cards/", "list/", "operation/", "styles/"} == (
        packages - {"management/"} | {f"{name}.py" for name in list_modules(ROOT / "instances")}
    )


def test_map_lists_exactly_the_modules_of_the_configuration() -> None:
    listed = {name for names in find_bullets("novita_site") for name in names if re.fullmatch(r"\w+", name)}

    assert listed == list_modules(ROOT / "novita_site") | list_modules(ROOT / "novita_site/postgresql")


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_no_line_is_longer_than_120_characters(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()

    assert [number for number, line in enumerate(lines, 1) if len(line) > 120] == []


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_every_named_file_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:instances|novita_site|tests|templates|docs|benchmarks)/[\w/.-]+)`", text)

    assert [name for name in named if not (ROOT / name).exists()] == []

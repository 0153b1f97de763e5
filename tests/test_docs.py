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


@pytest.mark.parametrize("folder", ["instances", "novita_site"])
def test_every_package_and_module_is_on_the_map(folder: str) -> None:
    names = re.findall(r"`([\w./]+)`", read("docs/architecture.md"))
    on_the_map = {part for name in names for part in re.split(r"[/.]", name)}
    files = [path for path in (ROOT / folder).rglob("*.py") if "migrations" not in path.parts]

    missing = [path for path in files if (path.parent.name if path.stem == "__init__" else path.stem) not in on_the_map]
    assert [str(path.relative_to(ROOT)) for path in missing] == []


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

"""The styles of a page as one file, and its modules as another.

Each is made from the separate files when a process first sends it.
Sixty files were sixty requests, and their headers alone took 45 kB. Comments and indentation are left out. A module
becomes a function that returns its exports, in the order of the imports. Modules that a page may never need are a
bundle of their own, which takes the modules that both need from the first one.
"""

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Final

_PAGES: Final = (
    *("tokens", "base", "bar", "bar-menu", "live", "buttons", "forms", "confirm", "banners", "plain"),
    *("card-contents", "cards", "charts", "reports", "costs", "activity"),
    *("toolbar", "popups", "table", "columns", "status", "selection", "pager"),
    *("plan", "lists", "operation", "targets"),
    *("drawer", "instance", "menu"),
)
# Bundle → its style sheets, in the order of the cascade.
_STYLES: Final = {
    "instances/pages.bundle.css": _PAGES,
    "instances/dashboard.bundle.css": tuple(
        one for one in _PAGES if one not in {"plain", "reports", "costs", "activity"}
    ),
    # After those of Django's admin, of Swagger UI, and of Django REST framework.
    "instances/records.bundle.css": (
        "tokens",
        "bar",
        "bar-menu",
        "records",
        "record-lists",
        "record-filters",
        "record-forms",
    ),
    "instances/docs.bundle.css": ("tokens", "bar", "bar-menu", "api-docs"),
    "instances/api.bundle.css": ("tokens", "bar", "bar-menu", "browsable-api"),
}
# Bundle → its first module.
_MODULES: Final = {
    "instances/dashboard.bundle.js": "instances/dashboard.js",
    "instances/page.bundle.js": "instances/page.js",
}
# Bundle → the one that imports it when it is first used, and its first module.
_LATER: Final = {"instances/later.bundle.js": ("instances/dashboard.bundle.js", "instances/later.js")}
LATER: Final = frozenset(_LATER)
NAMES: Final = frozenset({*_STYLES, *_MODULES, *_LATER})

_IMPORT: Final = re.compile(r"^import (?:\* as (\w+)|\{([^}]*)\}) from '(\.[^']+)';$", re.MULTILINE)
_DYNAMIC_IMPORT: Final = re.compile(r"\bimport\('(\.[^']+)\.js'\)")
_TEXT: Final = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
_BLANKS: Final = re.compile(r" ?([{}(),;:=<>?&|*%!\[\]]) ?")
_EXPORT: Final = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)

Read = Callable[[str], bytes | None]


def build(name: str, read: Read) -> bytes:
    """Return a bundle; `read` returns a static file by its name. Raises ValueError for what a bundle can't express."""
    if name in _STYLES:
        return "\n".join(_shorten_style(_read(f"instances/styles/{one}.css", read)) for one in _STYLES[name]).encode()
    if name in _LATER:
        return _build_later(name, read).encode()
    modules = _list_modules(name, read)
    shared = [_list_shared(modules, _list_later(later, read)) for later, (main, _) in _LATER.items() if main == name]
    return "\n".join([*modules.values(), *(f"export {{{', '.join(names)}}};" for names in shared)]).encode()


def _build_later(name: str, read: Read) -> str:
    main, first = _LATER[name]
    modules = _list_later(name, read)
    shared = _list_shared(_list_modules(main, read), modules)
    exported = _EXPORT.findall(_read(first, read))
    return "\n".join(
        [
            f"import {{{', '.join(shared)}}} from './{posixpath.basename(main)}';",
            *modules.values(),
            f"export const {{{', '.join(exported)}}} = {_make_variable(first)};",
        ]
    )


def _list_modules(name: str, read: Read) -> dict[str, str]:
    modules: dict[str, str] = {}
    _add_module(_MODULES[name], read, modules, [])
    return modules


def _list_later(name: str, read: Read) -> dict[str, str]:
    """Return the modules that the bundle has beside those of the first one."""
    main, first = _LATER[name]
    known = _list_modules(main, read)
    modules = dict(known)
    _add_module(first, read, modules, [])
    return {one: text for one, text in modules.items() if one not in known}


def _list_shared(modules: Mapping[str, str], later: Mapping[str, str]) -> list[str]:
    """Return the variables of the modules that the later ones import."""
    used = set(re.findall(r"^const .+ = (\$\w+);$", "\n".join(later.values()), re.MULTILINE))
    return [variable for variable in map(_make_variable, modules) if variable in used]


def _read(name: str, read: Read) -> str:
    content = read(name)
    if content is None:
        raise ValueError(f"{name} is missing")
    return content.decode()


def _shorten_style(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"^[ \t]*\n|^[ \t]+", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(--[\w-]+|[a-z-]+): (?=.*[;,]$)", r"\1:", text, flags=re.MULTILINE)
    return re.sub(r" (?=\{$)|(?<=[{};,])\n", "", text, flags=re.MULTILINE)


def _add_module(name: str, read: Read, modules: dict[str, str], importing: list[str]) -> None:
    """Add a module after those that it imports."""
    if name in importing:
        raise ValueError(f"{name} imports itself by {importing}")
    if name in modules:
        return
    text = _read(name, read)
    lines = []
    for whole, names, path in _IMPORT.findall(text):
        imported = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        _add_module(imported, read, modules, [*importing, name])
        taken = whole or "{" + names.strip().replace(" as ", ": ") + "}"
        lines.append(f"const {taken} = {_make_variable(imported)};")
    exported = _EXPORT.findall(text)
    body = _EXPORT.sub("", _IMPORT.sub("", text))
    if re.search(r"^(import|export)\b", body, re.MULTILINE):
        raise ValueError(f"{name} has an import or export of another form")
    body = _DYNAMIC_IMPORT.sub(r"import('\1.bundle.js')", body)
    body = re.sub(r"^[ \t]*//.*\n|^[ \t]*\n|^[ \t]+", "", body, flags=re.MULTILINE)
    body = "".join(map(_shorten_line, body.rstrip().split("\n"))).rstrip()
    inner = "\n".join([*lines, body, f"return {{{', '.join(exported)}}};"])
    modules[name] = f"const {_make_variable(name)} = (() => {{\n{inner}\n}})();"


def _shorten_line(line: str) -> str:
    """Leave out the comment, blanks around signs, and the line's end, but for lines with a template or a pattern."""
    if "`" in line:
        return line + "\n"
    parts: list[str] = []
    for part in _TEXT.split(line):
        code, comment, _ = part.partition(" // ") if len(parts) % 2 == 0 else (part, "", "")
        parts.append(code)
        if comment:
            break
    if any("/" in part for part in parts[::2]):
        return "".join(parts) + "\n"
    parts[::2] = [_BLANKS.sub(r"\1", part) for part in parts[::2]]
    shortened = "".join(parts).rstrip()
    return shortened if shortened.endswith(("{", ",", ";", "(", "[")) else shortened + "\n"


def _make_variable(name: str) -> str:
    return "$" + re.sub(r"\W", "_", name.removesuffix(".js"))

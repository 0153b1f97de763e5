"""The dashboard's styles and modules as one file each, made from the separate files when a process first sends them.

Sixty files were sixty requests, and their headers alone took 45 kB. Comments and indentation are left out. A module
becomes a function that returns its exports, in the order of the imports.
"""

import posixpath
import re
from collections.abc import Callable
from typing import Final

_OWN: Final = "instances/styles"
_STYLES: Final = [
    *("admin/css/base.css", "admin/css/dark_mode.css"),
    *(
        f"{_OWN}/{name}.css"
        for name in (
            *("tokens", "base", "login-notice", "buttons", "confirm", "banners", "figures", "toolbar", "filters"),
            *("table", "status", "details", "selection", "plan", "lists", "operation", "targets", "pager"),
        )
    ),
    "admin/css/responsive.css",
]
_STYLE_BUNDLE: Final = "instances/dashboard.bundle.css"
# Bundle → its first module.
_MODULES: Final = {"instances/dashboard.bundle.js": "instances/dashboard.js"}
NAMES: Final = frozenset({_STYLE_BUNDLE, *_MODULES})

# What only other pages of the admin have: their rules are half of its styles.
_ABSENT: Final = re.compile(
    r"\.(form-row|module|object-tools|selector|aligned|inline-|calendar|clockbox|submit-row|paginator|breadcrumbs|col[MS]"
    r"|popup|delete-confirmation|login|sort|stacked|related|datetime|timelist|timezone|errorlist|olMap|v[A-Z]\w+Field|help"
    r"|\w*link\b|filtered|fieldBox|dashboard|field|file-upload|checkbox-row|radiolist)"
    r"|#(changelist|content-related|change-history|toolbar\b)|table\.model|theme-toggle svg|\.base-svgs"
)
_RULE: Final = re.compile(r"([^{}@;]+)\{[^{}]*\}\n?")

_IMPORT: Final = re.compile(r"^import (?:\* as (\w+)|\{([^}]*)\}) from '(\.[^']+)';$", re.MULTILINE)
_EXPORT: Final = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_LINK: Final = re.compile(r"url\((?!data:|/|[\"'])([^)]+)\)")

Read = Callable[[str], bytes | None]


def build(name: str, read: Read) -> bytes:
    """Return a bundle; `read` returns a static file by its name. Raises ValueError for what a bundle can't express."""
    if name == _STYLE_BUNDLE:
        return "\n".join(_shorten_style(_read(one, read), one) for one in _STYLES).encode()
    modules: dict[str, str] = {}
    _add_module(_MODULES[name], read, modules, [])
    return "\n".join(modules.values()).encode()


def _read(name: str, read: Read) -> str:
    content = read(name)
    if content is None:
        raise ValueError(f"{name} is missing")
    return content.decode()


def _shorten_style(text: str, name: str) -> str:
    folder = posixpath.relpath(posixpath.dirname(name), posixpath.dirname(_STYLE_BUNDLE))
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    if name.startswith("admin/"):
        text = _RULE.sub(_drop_absent, text)
    text = _LINK.sub(lambda found: f"url({posixpath.normpath(posixpath.join(folder, found[1]))})", text)
    return re.sub(r"^[ \t]*\n|^[ \t]+", "", text, flags=re.MULTILINE)


def _drop_absent(rule: re.Match[str]) -> str:
    kept = [one for one in rule[1].split(",") if not _ABSENT.search(one)]
    return ",".join(kept) + rule[0][len(rule[1]) :] if kept else ""


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
    body = re.sub(r"^[ \t]*//.*\n|^[ \t]*\n|^[ \t]+", "", body, flags=re.MULTILINE)
    inner = "\n".join([*lines, body.rstrip(), f"return {{{', '.join(exported)}}};"])
    modules[name] = f"const {_make_variable(name)} = (() => {{\n{inner}\n}})();"


def _make_variable(name: str) -> str:
    return "$" + re.sub(r"\W", "_", name.removesuffix(".js"))

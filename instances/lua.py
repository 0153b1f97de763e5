"""Loads the Lua scripts, and runs them with named keys and arguments.

The comment at the top of a `.lua` file declares what the script takes. The loader turns the names into local variables:

    -- include: inventory
    -- keys: LEASE counters...
    -- args: token ids...
    -- constants: LEASE_SECONDS

`include` is another file of the same folder, whose declarations count, too. Names in upper case are those of
`redis_client`. The caller passes the others; a name with three dots is a list, and the last of its line. `prelude.lua`
comes first in every script.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from redis.commands.core import Script as RedisScript

from instances import redis_client

PRELUDE: Final = Path(__file__).with_name("prelude.lua")

_DECLARATION: Final = re.compile(r"-- (include|keys|args|constants): *(.*)")
_NAME: Final = re.compile(r"([A-Z][A-Z_]*|[a-z][a-z_]*(\.\.\.)?)")


class MalformedScript(ValueError):
    """A Lua file whose declarations don't fit the file; the message names both."""


class Script:
    """A Lua script, called with its keys and arguments by name. Redis runs it as one step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._declared: dict[str, list[str]] = {"include": [], "keys": [], "args": [], "constants": []}
        body = self._read(PRELUDE) + self._read(path)
        self._check_declarations()
        self.source = self._declare_locals() + body
        names = self._declared["keys"] + self._declared["args"]
        self.given = frozenset(_get_plain(name) for name in names if not name.isupper())
        # The keys of a script that takes no others, listed once.
        self._own_keys = self._list_values("keys", {}) if all(map(str.isupper, self._declared["keys"])) else []

    def __call__(self, **given: Any) -> Any:
        """Run the script and return its answer. Raises CacheUnavailable.

        None arrives as an empty string, True and False as 1 and 0.
        """
        if given.keys() != self.given:
            raise TypeError(f"{self.path.name} takes {sorted(self.given)}, not {sorted(given)}")
        with redis_client.redis_errors():
            return self._registered(
                keys=self._own_keys or self._list_values("keys", given),
                args=self._list_values("args", given),
                client=redis_client.get_redis(),
            )

    @cached_property
    def _registered(self) -> RedisScript:
        # Sends the hash alone, and the source only when Redis doesn't have it.
        return redis_client.get_redis().register_script(self.source)

    def _list_values(self, kind: str, given: dict[str, Any]) -> list[Any]:
        values: list[Any] = []
        for name in self._declared[kind]:
            if name.endswith("..."):
                values += map(_encode, given[_get_plain(name)])
            else:
                values.append(_encode(getattr(redis_client, name) if name.isupper() else given[name]))
        return values

    def _read(self, path: Path) -> str:
        """Return a file's text, after that of the files it includes, and collect the declarations."""
        text, included = path.read_text(encoding="utf-8"), ""
        code = re.sub("--.*", "", text)
        if re.search(r"\b(KEYS|ARGV)\b", code):
            raise MalformedScript(f"{path}: KEYS and ARGV are used, in place of declared names")
        for line in text.splitlines():
            if not line.startswith("--"):
                break
            declaration = _DECLARATION.fullmatch(line)
            if declaration is None:
                continue
            kind, names = declaration[1], declaration[2].split()
            if kind == "include":
                included += "".join(self._read(path.with_name(f"{name}.lua")) for name in names)
                continue
            for name in names:
                if not re.search(rf"\b{re.escape(_get_plain(name))}\b", code):
                    raise MalformedScript(f"{path}: {name} is declared and not used")
                if name not in self._declared[kind]:
                    self._declared[kind].append(name)
        return included + text

    def _check_declarations(self) -> None:
        keys, args, constants = (self._declared[kind] for kind in ("keys", "args", "constants"))
        names = [*keys, *args, *constants]
        reasons = [
            *(f"{name} is no name" for name in names if not _NAME.fullmatch(name)),
            *(f"{name} is declared twice" for name in names if names.count(name) > 1),
            *(f"redis_client has no {name}" for name in names if name.isupper() and not hasattr(redis_client, name)),
            *(f"the constant {name} is not in upper case" for name in constants if not name.isupper()),
            *(f"the list {name} is not the last" for name in (*keys[:-1], *args[:-1]) if name.endswith("...")),
        ]
        if reasons:
            raise MalformedScript(f"{self.path}: {reasons[0]}")

    def _declare_locals(self) -> str:
        lines = [f"local {name} = {int(getattr(redis_client, name))}" for name in self._declared["constants"]]
        for kind, table in (("keys", "KEYS"), ("args", "ARGV")):
            for number, name in enumerate(self._declared[kind], 1):
                if name.endswith("..."):
                    # A loop, since unpack() fails from 8,000 values on.
                    plain, before = _get_plain(name), number - 1
                    lines.append(
                        f"local {plain} = {{}} for i = {number}, #{table} do {plain}[i - {before}] = {table}[i] end"
                    )
                else:
                    lines.append(f"local {name} = {table}[{number}]")
        return "\n".join([*lines, ""])


def load(module_file: str, name: str) -> Script:
    """Load a script from the folder `scripts` beside a module."""
    return Script(Path(module_file).parent / "scripts" / f"{name}.lua")


def _get_plain(name: str) -> str:
    return name.removesuffix("...")


def _encode(value: Any) -> Any:
    if value is None:
        return ""
    return int(value) if isinstance(value, bool) else value

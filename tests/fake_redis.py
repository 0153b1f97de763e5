"""Redis in memory, as fakeredis has it, with Lua scripts that are compiled once, as Redis does it, and the rules of a
user that docs/operations.md describes.

fakeredis compiles each script at each call, collects Lua's garbage after it, and looks for new global variables at each
command of the script. That took a third of the time of a request.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from fakeredis import FakeRedisConnection, FakeServer
from fakeredis.commands_mixins import scripting_mixin
from redis.exceptions import NoPermissionError

# What redis-py sends at the beginning of a connection. Redis allows the first two to everybody, and a refusal of the
# third has no effect.
OF_CONNECTIONS = {"hello", "auth", "client"}
OPERATIONS = Path(__file__).resolve().parent.parent / "docs" / "operations.md"

# As Redis does it. fakeredis compares the names of all globals instead.
PROTECT_GLOBALS = """
setmetatable(_G, {__newindex = function(_, name)
    error("Script attempted to create global variable '" .. name .. "'", 2)
end})
"""


@cache
def read_rules() -> tuple[str, ...]:
    """Return the rules of a user of Redis in the documentation, without the name and the password."""
    (block,) = re.findall(r"```\nuser panel on >PASSWORD (.*?)```", OPERATIONS.read_text(), re.DOTALL)
    return tuple(block.split())


class PanelConnection(FakeRedisConnection):
    """A connection of the program under test, which may send the documented commands and no others."""

    def send_command(self, *args: Any, **options: Any) -> None:
        check(args)
        super().send_command(*args, **options)

    def pack_commands(self, commands: Any) -> Any:
        for args in commands:
            check(args)
        return super().pack_commands(commands)


def check(args: tuple[Any, ...]) -> None:
    """Refuse a command that the documented rules don't allow, as Redis does."""
    # The name has a second word for some commands, which may be an argument of its own.
    words = [word.lower() for arg in args[:2] for word in str(arg).split()[:2]][:2]
    if words[0] not in OF_CONNECTIONS and {f"+{words[0]}", f"+{'|'.join(words)}"}.isdisjoint(read_rules()):
        raise NoPermissionError(f"the rules in {OPERATIONS.name} don't allow {' '.join(words)}")


class Runtime:
    """A Lua runtime that compiles each script once."""

    def __init__(self, usual: Any) -> None:
        self._usual = usual
        self._compiled: dict[Any, Any] = {}
        usual.execute(PROTECT_GLOBALS)

    def execute(self, script: Any) -> Any:
        if script == "collectgarbage()":
            return None  # Lua collects its garbage by itself.
        if script not in self._compiled:
            self._compiled[script] = self._usual.compile(script)
        return self._compiled[script]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._usual, name)


def make_server() -> FakeServer:
    server: Any = FakeServer(version=(6, 2))
    maker: Any = scripting_mixin.ScriptingCommandsMixin()
    maker._get_server_runtime(server)
    server._lua_runtime = Runtime(server._lua_runtime)
    scripting_mixin._check_for_lua_globals = lambda *args: None
    return server

"""Redis in memory, as fakeredis has it, with Lua scripts that are compiled once, as Redis does it.

fakeredis compiles each script at each call, collects Lua's garbage after it, and looks for new global variables at each
command of the script. That took a third of the time of a request.
"""

from typing import Any

from fakeredis import FakeServer
from fakeredis.commands_mixins import scripting_mixin

# As Redis does it. fakeredis compares the names of all globals instead.
PROTECT_GLOBALS = """
setmetatable(_G, {__newindex = function(_, name)
    error("Script attempted to create global variable '" .. name .. "'", 2)
end})
"""


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

"""The rules of a Redis user in docs/operations.md allow every command that this program sends.

All unit tests hold what Python sends to the same rules: see `tests/fake_redis.py`.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from django_redis import get_redis_connection
from redis.exceptions import NoPermissionError

from tests.fake_redis import read_rules

APP = Path(__file__).resolve().parent.parent / "instances"
# redis-py's methods that have another name than their command, or send several.
COMMANDS: dict[str, set[str]] = {
    "delete": {"del"},
    "incr": {"incrby"},
    "memory_usage": {"memory|usage"},
    "pipeline": {"multi", "exec"},
    "execute": set(),
    # Sent to a sentinel, which has its own rules.
    "execute_command": set(),
    "register_script": {"evalsha", "script|load"},
}


def list_sent_by_scripts() -> set[str]:
    """Return the commands in the Lua files: a name in capitals inside a call."""
    found: set[str] = set()
    for path in APP.rglob("*.lua"):
        for arguments in re.findall(r"redis\.p?call\(([^,)]*)", path.read_text()):
            found |= {name.lower() for name in re.findall("'([A-Z]+)'", arguments)}
    return found


def list_sent_by_python() -> set[str]:
    found: set[str] = set()
    for path in APP.rglob("*.py"):
        for name in re.findall(r"\b(?:get_redis\(\)|pipeline|client)\.(\w+)\(", path.read_text()):
            if "redis" in path.read_text() and path.parent.name not in {"novita", "simulator", "outgoing"}:
                found |= COMMANDS.get(name, {name})
    return found


@pytest.mark.parametrize("source", [list_sent_by_scripts, list_sent_by_python])
def test_every_command_is_in_the_rules(source: Callable[[], set[str]]) -> None:
    allowed = {rule[1:] for rule in read_rules() if rule.startswith("+")}

    sent = source()

    assert len(sent) > 10
    assert sent - allowed == set()


def test_rules_allow_no_other_command() -> None:
    allowed = {rule[1:] for rule in read_rules() if rule.startswith("+")}

    # Sent by redis-py: at the beginning of a connection, and by tests of it.
    assert allowed - list_sent_by_scripts() - list_sent_by_python() == {"ping", "select"}


def test_rules_name_our_keys_alone() -> None:
    assert [rule for rule in read_rules() if not rule.startswith("+")] == ["resetchannels", "~{novita:*"]


@pytest.mark.parametrize("command", [("LPUSH", "key", "1"), ("CONFIG", "GET", "maxmemory"), ("SCRIPT FLUSH",)])
def test_redis_of_the_unit_tests_refuses_other_commands(command: tuple[str, ...]) -> None:
    with pytest.raises(NoPermissionError, match=command[0].lower()):
        get_redis_connection("default").execute_command(*command)


def test_redis_of_the_unit_tests_refuses_other_commands_in_a_pipeline() -> None:
    with pytest.raises(NoPermissionError, match="lpush"):
        get_redis_connection("default").pipeline().get("key").lpush("key", "1").execute()

"""Files that other users could read and that can't be changed are named, with what their owner must do."""

from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks

from novita_site import private_files


@pytest.fixture
def var(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings.VAR_DIR = tmp_path / "var"
    settings.RUNNING_FILE = settings.VAR_DIR / "running.env"
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.sqlite3")
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", tmp_path / "panel.sqlite3")
    settings.VAR_DIR.mkdir(mode=0o755)
    return settings.VAR_DIR  # type: ignore[no-any-return]  # settings have no types


def test_what_is_ours_is_repaired_and_said_once(var: Path, caplog: pytest.LogCaptureFixture) -> None:
    (var / "secret-key").touch(mode=0o644)

    assert private_files.repair() == [] and private_files.repair() == []

    assert [path.stat().st_mode & 0o777 for path in (var, var / "secret-key")] == [0o700, 0o600]
    assert len(caplog.records) == 2


def test_a_database_that_is_missing_is_made_private(var: Path) -> None:
    private_files.repair()

    assert (var.parent / "panel.sqlite3").stat().st_mode & 0o777 == 0o600


def test_what_is_another_users_is_named_by_the_check(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr("os.chmod", refuse)

    (warning,) = (message for message in run_checks() if message.id == "novita.W001")

    assert warning.msg == (
        f"{var} can be read by other users of this machine (mode 755). Its owner must run: chmod 700 {var}"
    )


def test_a_file_system_without_modes_is_named_too(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.chmod", lambda *args, **options: None)

    assert len(private_files.repair()) == 1


@pytest.mark.parametrize("name", [":memory:", "file:memory?mode=memory&cache=shared"])
def test_a_database_in_memory_is_no_file(var: Path, settings: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", name)

    private_files.repair()

    assert not Path(name).exists()

"""Run the tests on a PostgreSQL server of their own: `python -m tests.on_postgresql [options of pytest]`."""

import os
import subprocess
import sys

import pytest

from tests.system.postgresql import running


def main() -> int:
    try:
        with running() as server:
            environment = {**os.environ, "TEST_DATABASE_URL": server.url}
            return subprocess.call([sys.executable, "-m", "pytest", *sys.argv[1:]], env=environment)
    except pytest.skip.Exception as exc:
        # `running` is a fixture's part, and skips a test where PostgreSQL is missing.
        sys.exit(str(exc))


if __name__ == "__main__":
    sys.exit(main())

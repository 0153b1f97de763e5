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
            run = [sys.executable, "-m", "pytest"]
            status = subprocess.call([*run, *sys.argv[1:]], env=environment)
            if status == pytest.ExitCode.TESTS_FAILED:
                # As `make test` does: what fails by load alone passes when it runs alone.
                status = subprocess.call([*run, "--last-failed", "--last-failed-no-failures", "none"], env=environment)
            return status
    except pytest.skip.Exception as exc:
        # `running` is a fixture's part, and skips a test where PostgreSQL is missing.
        sys.exit(str(exc))


if __name__ == "__main__":
    sys.exit(main())

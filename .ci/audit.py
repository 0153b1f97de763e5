"""Check for known vulnerabilities with pip-audit, which gets all arguments. Exit status 1: some found, or an error.

When the source of advisories is unreachable, or lists none of the packages (as with some mirrors), one line reports
that nothing was checked and the status is 0, so that tests run offline. With AUDIT=strict the status is then 1, also
when a single package was not checked.
"""

import json
import os
import re
import subprocess
import sys

# pip-audit sends one request per package and caches the answers.
DEADLINE_SECONDS = 90
COMMAND = ["-m", "pip_audit", "--disable-pip", "--progress-spinner", "off", "--timeout", "5", "--format", "json"]
# The errors of pip-audit without an answer: its own, and uncaught ones of requests.
UNREACHABLE = re.compile(
    r"requests\.exceptions\.\w+|pip_audit\._service\.interface\.\w+|Could not connect to \S+ vulnerability feed"
    r"|PyPI is not redirecting properly"
)


def main() -> int:
    try:
        process = subprocess.run(  # noqa: S603 - pip-audit, with the arguments of this command
            [sys.executable, *COMMAND, *sys.argv[1:]],
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return skip(f"no answer within {DEADLINE_SECONDS} s")
    try:
        packages = json.loads(process.stdout)["dependencies"]
    except ValueError:
        # A traceback ends with the error; the lines before it may quote anything.
        last_lines = "\n".join(process.stderr.strip().splitlines()[-2:])
        if reason := UNREACHABLE.search(last_lines):
            return skip(f"its source can't be reached ({reason[0].rpartition('.')[2]})")
        sys.stderr.write(process.stderr)
        return 1
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for found in package["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            names = ", ".join(sorted({found["id"], *found["aliases"]}))
            say(f"{package['name']} {package['version']}: {names}, fixed in {fixed}. {found['description'][:300]}")
    if vulnerable:
        return 1
    if len(unknown) == len(packages):
        return skip("its source knows none of the packages")
    say(f"pip-audit: no known vulnerability in {len(packages) - len(unknown)} packages")
    if unknown:
        say(f"pip-audit: not checked, unknown to its source: {', '.join(unknown)}")
    return fail_if_strict() if unknown else 0


def skip(reason: str) -> int:
    say(f"pip-audit: skipped, {reason}")
    return fail_if_strict()


def fail_if_strict() -> int:
    """Return the exit status for packages that were not checked."""
    if os.environ.get("AUDIT") != "strict":
        return 0
    say("pip-audit: failed, AUDIT=strict wants every package checked")
    return 1


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())

"""Look up known vulnerabilities of the locked packages: ``make audit``.

pip-audit also succeeds if its database knows none of the packages, as behind a mirror.  This reports it.
"""

import argparse
import json
import subprocess
from typing import Any

from cifar2 import errors
from cifar2.errors import UserError

COMMAND = ("pip-audit", "--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json")
LOCK = "requirements.txt"


def verdict(dependencies: list[dict[str, Any]], strict: bool) -> str:
    """The result in one line.

    Args:
        dependencies: as pip-audit reports them, each with ``vulns`` or ``skip_reason``.
        strict: whether every package must be audited.

    Raises:
        UserError: a package has a known vulnerability, or is not audited although all must be.
    """
    audited = [d for d in dependencies if "vulns" in d]
    found = [
        f"{d['name']} {d['version']}: {v['id']}, fixed in {', '.join(v['fix_versions']) or 'no version'}"
        for d in audited
        for v in d["vulns"]
    ]
    if found:
        raise UserError(f"{LOCK} has known vulnerabilities: {'; '.join(found)}")
    n, total = len(audited), len(dependencies)
    if n < total and strict:
        raise UserError(f"{total - n} of {total} packages could not be audited; `pip-audit` prints why")
    if n == 0:
        return f"not audited here: the package index in use has no vulnerability data for any of {total} packages"
    return f"no known vulnerabilities in {n} of {total} packages" + f"; {total - n} could not be audited" * (n < total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail if a package could not be audited")
    strict = parser.parse_args().strict
    done = subprocess.run([*COMMAND, "--requirement", LOCK], capture_output=True, text=True)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"pip-audit failed: {reason}") from None
    print(verdict(dependencies, strict))


if __name__ == "__main__":
    errors.run(main)

import pytest

from cifar2.errors import UserError
from tools.audit import verdict

GOOD = {"name": "numpy", "version": "2.0", "vulns": []}
BAD = {"name": "pillow", "version": "11.0", "vulns": [{"id": "CVE-2026-1", "fix_versions": ["11.1", "12.0"]}]}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("dependencies", "line"),
    [
        ([GOOD], "no known vulnerabilities in 1 of 1 packages"),
        ([GOOD, SKIPPED], "no known vulnerabilities in 1 of 2 packages; 1 could not be audited"),
        (
            [SKIPPED, SKIPPED],
            "not audited here: the package index in use has no vulnerability data for any of 2 packages",
        ),
    ],
)
def test_the_verdict_counts_what_was_audited(dependencies, line):
    assert verdict(dependencies, strict=False) == line


@pytest.mark.parametrize("strict", [False, True])
def test_a_vulnerability_fails_the_audit(strict):
    with pytest.raises(UserError, match=r"pillow 11\.0: CVE-2026-1, fixed in 11\.1, 12\.0$"):
        verdict([GOOD, BAD, SKIPPED], strict)


def test_a_strict_audit_fails_if_a_package_is_left_out():
    assert verdict([GOOD], strict=True)
    with pytest.raises(UserError, match="1 of 2 packages could not be audited"):
        verdict([GOOD, SKIPPED], strict=True)

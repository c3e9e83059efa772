import pytest

from cifar2.training import fingerprint
from tests.conftest import ROOT

DRAWN_BY = {
    "prepare": {"colours", "prepare"},
    "near_duplicates": {"near_duplicates"},
    "verify": {"colours", "verify"},
    "select_model": {"colours", "select_model"},
    "evaluate": {"evaluate"},
    "explain": {"explain"},
    "report": {"colours", "report"},
    "sweep": {"colours", "sweep"},
}


@pytest.mark.parametrize("path", sorted((ROOT / "stages").glob("*.py")), ids=lambda path: path.stem)
def test_a_stage_depends_on_its_own_figures_alone(path):
    """A change to one figure makes one stage stale."""
    modules = {module.stem for module in fingerprint.modules(path) if module.parent.name == "figures"}
    assert modules == ({"canvas"} | DRAWN_BY[path.stem] if path.stem in DRAWN_BY else set())

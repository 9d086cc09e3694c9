"""Places for trials that need a package say which; what they do is in test_slurm and test_ray."""

import sys

import pytest

from genlab.errors import ConfigError
from genlab.sweep.plan import read_plan


@pytest.mark.parametrize(("launcher", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_package_that_is_not_there_is_named(launcher: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"launcher={launcher} needs a package: pip install 'genlab\[{launcher}\]'"):
        read_plan([f"launcher={launcher}", "seed=0,1"], None)

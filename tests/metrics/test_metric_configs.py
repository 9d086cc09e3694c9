"""Every metric's file wraps its own key, so that metrics=[fid,kid] composes."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from genlab.metrics.base import ModelMetric
from stand_ins import without_downloads

GROUP = Path(__file__).parents[2] / "configs" / "metrics"
METRICS = sorted(path.stem for path in GROUP.glob("*.yaml"))


@pytest.fixture(autouse=True)
def hydra_sees_the_configs():
    with initialize_config_module("genlab.configs", version_base=None):
        yield


def test_all_metrics_compose_side_by_side_and_build(tmp_path: Path) -> None:
    config = compose(overrides=[f"+metrics=[{','.join(METRICS)}]", "+metrics/extractor=random"])
    assert set(config.metrics) == {*METRICS, "extractor"}
    for name in METRICS:
        metric = instantiate(without_downloads(OmegaConf.to_container(config.metrics[name]), tmp_path))
        assert isinstance(metric, ModelMetric) or isinstance(metric.reads, frozenset)
        assert metric.directions
        assert isinstance(metric.settings(), dict)


@pytest.mark.parametrize("extractor", sorted(path.stem for path in (GROUP / "extractor").glob("*.yaml")))
def test_extractors_compose(extractor: str) -> None:
    config = compose(overrides=[f"+metrics/extractor={extractor}"])
    assert callable(get_class(config.metrics.extractor._target_).extract)


@pytest.mark.parametrize("path", sorted(GROUP.rglob("*.yaml")), ids=lambda path: path.stem)
def test_files_open_with_what_they_are(path: Path) -> None:
    assert path.read_text().startswith("# ")

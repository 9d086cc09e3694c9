"""What was caused by a signal is told from what was not, however the errors hang together."""

from genlab.callbacks.stop import Stopped, stopped_by
from genlab.errors import ConfigError, StorageError


def test_a_signal_is_found_below_a_librarys_error() -> None:
    signal, error = Stopped(15), RuntimeError("half done")
    error.__context__ = signal
    assert stopped_by(error) is signal
    assert stopped_by(ConfigError("wrong")) is None


def test_what_cannot_be_written_is_always_said() -> None:
    error = StorageError("full")
    error.__context__ = Stopped(15)
    assert stopped_by(error) is None


def test_causes_that_lead_back_to_themselves_end() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert stopped_by(first) is None
    alone = ConfigError("alone")
    alone.__cause__ = alone
    assert stopped_by(alone) is None

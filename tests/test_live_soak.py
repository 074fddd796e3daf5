from __future__ import annotations

import pytest
from live import soak


@pytest.mark.slow
def test_a_minute_of_faults_leaves_no_trace() -> None:
    told: list[str] = []
    found = soak(1.0, told.append)
    assert found.wrong == [], told
    assert found.reconnects >= 1
    assert found.failures >= 1
    assert found.shown > 300
    assert found.dreams > 20
    assert found.recordings >= 2

from __future__ import annotations

import pytest

from edgeopt.record import RunRecord
from tests import made_up_run
from tests.made_up_run import Samples


@pytest.fixture
def record() -> RunRecord:
    return made_up_run.record()


@pytest.fixture
def passing(record: RunRecord) -> RunRecord:
    return made_up_run.passing(record)


@pytest.fixture
def samples(record: RunRecord) -> Samples:
    return made_up_run.samples(record)


@pytest.fixture
def awkward(record: RunRecord) -> RunRecord:
    return made_up_run.awkward(record)


@pytest.fixture
def no_devices(record: RunRecord) -> RunRecord:
    return made_up_run.without_devices(record)

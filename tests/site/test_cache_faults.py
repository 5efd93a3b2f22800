"""The caches' tiers fail under load over HTTP, the short form of `make bench-cache-faults`: no request may."""

from collections.abc import Iterator

import pytest

from loadtests.cache_faults import (
    DISK_FAULTS,
    SHARED_FAULTS,
    Fault,
    FaultyPlace,
    Load,
    Want,
    faulty_place,
    wait_recovered,
)
from loadtests.redis_server import NoServerError
from router.cache import TierName

PER_S = 15.0
FAULT_S = 2.5
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyPlace]:
    try:
        with faulty_place(tmp_path_factory.mktemp("faulty")) as place:
            yield place
    except NoServerError as exc:
        pytest.skip(str(exc))


@pytest.mark.anyio
@pytest.mark.parametrize("fault", [*SHARED_FAULTS, *DISK_FAULTS], ids=lambda fault: f"{fault.tier}-{fault.name}")
async def test_no_request_fails_and_the_tier_is_used_again(place: FaultyPlace, fault: Fault) -> None:
    if fault.tier is TierName.DISK and place.disk is None:
        pytest.skip("a file system cannot be mounted here (needs root)")
    async with Load(place, PER_S) as load:
        before = await load.look_at(fault.tier)
        async with fault.begin(place):
            await load.watch(FAULT_S)
            during = await load.look_at(fault.tier)
        recovered_s = await wait_recovered(load, fault.tier, PATIENCE_S)

    assert [outcome.failure for outcome in load.outcomes if outcome.failure] == []
    assert {outcome.want for outcome in load.outcomes} >= {Want.MEMORY, Want.DISK}
    assert not fault.shows or during.errors + during.corrupt > before.errors + before.corrupt, "nobody noticed"
    assert recovered_s < PATIENCE_S

from router.config.cache import Tiers
from router.telemetry import Telemetry
from tests.cache.plain import PlainRecords


class TieredRecords(PlainRecords):
    def __init__(self, config: Tiers, telemetry: Telemetry) -> None:
        super().__init__()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

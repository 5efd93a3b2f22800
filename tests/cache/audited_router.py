"""`hybrid serve` with `DictRecords` for caches: `python -m tests.cache.audited_router serve --config ...`."""

from dataclasses import replace

from litestar import Litestar

import router.app
from edge.serving import Drain
from router.cache.statistics import Caches
from router.cli import main
from router.config import Config
from tests.cache.records import DictRecords

create_bare_app = router.app.create_app


def create_app(config: Config, drain: Drain) -> Litestar:
    app = create_bare_app(config, drain)

    def assemble() -> None:
        app.state.service = replace(app.state.service, caches=Caches(DictRecords()))

    app.on_startup.append(assemble)
    return app


if __name__ == "__main__":
    router.app.create_app = create_app
    main()

"""`python -m deploy.compose.origin`: the pages that the one origin has for all services together.

The gateway hands on what belongs to a service by itself; here is the rest: whether all are ready, what all have
measured, the whole API, and the answer to a path that is nobody's.
"""

import asyncio

import structlog

from deploy.local.gateway import gateway
from shared.contracts import SERVICES
from shared.http import HttpServer
from shared.logs import configure_logs
from shared.service import stop_on_signals

log = structlog.get_logger(__name__)

_PORT = 8080


def main() -> None:
    """Serve until told to stop."""
    configure_logs(form="json", level="info", service="origin")
    asyncio.run(_serve())


async def _serve() -> None:
    stopping = stop_on_signals()
    services = {name: ((), f"http://{name}:{_PORT}") for name in SERVICES}
    async with gateway(services) as origin:
        server = HttpServer(origin, host="0.0.0.0", port=_PORT)  # noqa: S104 - a container's own network
        serving = asyncio.create_task(server.serve())
        log.info("started", action="started", port=_PORT)
        await asyncio.wait([serving, asyncio.create_task(stopping.wait())], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving


if __name__ == "__main__":
    main()

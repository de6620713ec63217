"""What must be so before servers are started that will be ended in every way there is."""

import os

from deploy.local.rabbitmq import MissingBrokerError, find_broker


def trouble_here() -> str:
    """Return why servers of our own cannot be run here; empty where they can."""
    servers = ("_DATABASE_URL", "_AMQP_URL")
    if given := [name for name in os.environ if name.startswith("TENURE_") and name.endswith(servers)]:
        return f"Only servers of our own may be killed, and {', '.join(given)} is set."
    try:
        find_broker(print)
    except MissingBrokerError as error:
        return str(error)
    return ""

"""`python -m services.metrics`: the metrics service as a process of its own."""

from services.metrics.app import build
from services.metrics.settings import MetricsSettings
from shared.service import main

if __name__ == "__main__":
    main(build, MetricsSettings)

"""What Prometheus and Grafana are told: what to collect, when to call somebody, and what to show."""

from pathlib import Path

PROMETHEUS = Path(__file__).with_name("prometheus")
"""Configuration, alert rules and the rules' own tests."""

DASHBOARDS = Path(__file__).parent / "grafana" / "dashboards"
"""One JSON file for each dashboard, as Grafana exports them."""

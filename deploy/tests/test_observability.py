"""Whether Prometheus and Grafana understand what they are told, and whoever is called finds what to do.

Whether the services measure what is asked for is tested beside running ones, in tests/test_observability.py; promtool's
own checks run in `make check`.
"""

import json
import re
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.observability import DASHBOARDS, PROMETHEUS
from deploy.tests.conftest import ROOT
from deploy.tests.promql import Asked, Query, alerts, asked, dashboards, parsed, queries
from shared.contracts import SERVICES

_PAGE = "docs/operations.md"


def anchors(page: str) -> set[str]:
    """Return what links into a page can point at, made of its headings as everybody's Markdown does."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_query_can_be_parsed() -> None:
    found = queries()

    assert len(found) > 50
    for query in found:
        assert asked(parsed(query)), query.place


def test_what_a_query_asks_for_is_found_in_all_its_parts() -> None:
    text = """
        sum by (service) (rate(a_total{status=~"5..", status!="503"}[5m])) / on (service) (max(b) > 1)
        and count(count by (version) (c)) > 1
        or max_over_time(absent(d{x="1"})[5m:1m]) > -histogram_quantile(0.9, sum by (le) (e))
    """

    assert asked(parsed(Query("here", text))) == [
        Asked("a_total", frozenset({"service", "status"})),
        Asked("b", frozenset()),
        Asked("c", frozenset({"version"})),
        Asked("d", frozenset({"x"})),
        Asked("e", frozenset({"le"})),
    ]


def test_a_mistake_in_a_query_is_found() -> None:
    with pytest.raises(AssertionError, match="here: "):
        parsed(Query("here", "sum(rate(a_total)"))


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_every_alert_says_what_is_wrong_how_much_it_matters_and_what_to_do(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"Tenure[A-Z]\w+", alert["alert"])
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"]["summary"]
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert page == _PAGE
    assert anchor in anchors((ROOT / page).read_text(encoding="utf-8"))


def test_the_page_leads_nowhere_where_there_is_nothing() -> None:
    page = (ROOT / _PAGE).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", page)

    assert len(targets) > 20
    for target in targets:
        path, _, anchor = target.partition("#")
        linked = (ROOT / _PAGE).parent / path if path else ROOT / _PAGE
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), target


def test_a_runbook_that_is_not_there_is_found() -> None:
    assert anchors("# A page\n\n## What's `wrong` here?\n") == {"a-page", "whats-wrong-here"}


def test_every_alert_is_tested() -> None:
    """By promtool, which `make check` has run them."""
    names = [alert["alert"] for alert in alerts()]
    tests = (PROMETHEUS / "rules.test.yml").read_text()

    assert len(names) == len(set(names))
    assert [name for name in names if name not in tests] == []


def test_every_service_is_collected_from_by_its_name() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]

    assert {job["job_name"] for job in jobs} == set(SERVICES)
    for job in jobs:
        [discovered] = job["dns_sd_configs"]
        assert discovered == {"names": [job["job_name"]], "type": "A", "port": 8080}
        assert job["relabel_configs"] == [{"target_label": "service", "replacement": job["job_name"]}]


def test_no_service_can_be_missing_unnoticed() -> None:
    [down] = [alert for alert in alerts() if alert["alert"] == "TenureServiceDown"]

    assert set(re.findall(r'absent\(up\{service="(\w+)"\}\)', down["expr"])) == set(SERVICES)


@pytest.mark.parametrize("name", dashboards())
def test_grafana_understands_the_whole_of_a_dashboard(name: str) -> None:
    """Its own models read it and lose nothing of it: what they do not know, they leave out."""
    given = dashboards()[name]

    read = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))

    assert list(differences(given, read)) == []


def differences(given: Any, read: Any, place: str = "") -> Any:
    """Name what is in the one and not in the other; what is empty or no need not be said."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            if key in read:
                yield from differences(value, read[key], f"{place}/{key}")
            elif value not in (None, "", [], {}, False):
                yield f"{place}/{key} is lost"
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for index, (one, other) in enumerate(zip(given, read, strict=True)):
            yield from differences(one, other, f"{place}/{index}")
    elif given != read:
        yield f"{place} is {read!r}, not {given!r}"


def test_what_grafana_does_not_know_is_found() -> None:
    given = {"title": "x", "panels": [{"type": "stat", "titel": "y"}], "nonsense": 1}

    read = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))

    assert set(differences(given, read)) == {"/panels/0/titel is lost", "/nonsense is lost"}


def test_dashboards_are_told_apart() -> None:
    boards = dashboards()

    assert len({board["uid"] for board in boards.values()}) == len({b["title"] for b in boards.values()}) == len(boards)
    for name, board in boards.items():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids)), name
        assert "id" not in board, f"{name}: its id is that of the Grafana that it was exported from"


def test_panels_do_not_overlap() -> None:
    for name, board in dashboards().items():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            assert max(x for x, _ in cells) < 24, f"{name}: {panel['title']}"
            assert not cells & taken, f"{name}: {panel['title']}"
            taken |= cells


def test_every_panel_asks_the_data_source_that_was_chosen() -> None:
    for name, board in dashboards().items():
        variables = {variable["name"]: variable for variable in board["templating"]["list"]}
        assert variables["datasource"]["type"] == "datasource"
        for panel in board["panels"]:
            if panel["type"] == "row":
                continue
            assert panel["datasource"]["uid"] == "${datasource}", f"{name}: {panel['title']}"
            named = re.findall(r"\$(\w+)", " ".join(target["expr"] for target in panel["targets"]))
            assert set(named) <= {*variables, "__rate_interval"}, f"{name}: {panel['title']}"


def test_grafana_finds_dashboards_and_data_by_itself() -> None:
    provisioning = DASHBOARDS.parent / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "tenure.yml").read_text())["providers"]

    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    assert provider["options"]["path"] == "/etc/grafana/dashboards"

"""What alert rules and dashboards ask Prometheus for."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import promql_parser as promql
import yaml

from deploy.observability import DASHBOARDS, PROMETHEUS

_VARIABLES = {"$__rate_interval": "5m"}
_LABEL_VALUES = re.compile(r"label_values\((\w+), (\w+)\)")
_OF_PROMETHEUS = frozenset({"le", "job", "instance", "service", "alertname", "alertstate"})
"""Labels that Prometheus itself gives; ``service`` by the scrape configuration."""


@dataclass(frozen=True)
class Query:
    """One expression, and where it stands.

    Attributes:
        place: an alert's name, or a dashboard's with a panel's.
    """

    place: str
    expression: str


@dataclass(frozen=True)
class Asked:
    """What a query wants of one metric.

    Attributes:
        name: as exposed, suffix included.
        labels: that it is selected by.
    """

    name: str
    labels: frozenset[str]


def alerts() -> list[dict[str, Any]]:
    """Return every alert rule."""
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboards() -> dict[str, dict[str, Any]]:
    """Return every dashboard by its file's name."""
    return {path.name: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def queries() -> list[Query]:
    """Return all that rules and dashboards ask."""
    return [Query(rule["alert"], rule["expr"]) for rule in alerts()] + [
        query for name, board in dashboards().items() for query in _of_board(name, board)
    ]


def _of_board(name: str, board: dict[str, Any]) -> Iterator[Query]:
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield Query(f"{name}: {panel['title']}", target["expr"])
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = _label_values(variable["query"]["query"])
            yield Query(f"{name}: ${variable['name']}", f"count by ({label}) ({metric})")


def _label_values(text: str) -> tuple[str, str]:
    found = _LABEL_VALUES.fullmatch(text)
    assert found, f"not of the form label_values(metric, label): {text}"
    return found[1], found[2]


def parsed(query: Query) -> promql.Expr:
    """Parse a query as Prometheus would, with something in place of Grafana's variables.

    Raises:
        AssertionError: it cannot be parsed.
    """
    text = query.expression
    for variable, value in _VARIABLES.items():
        text = text.replace(variable, value)
    try:
        return promql.parse(text)
    except ValueError as error:
        raise AssertionError(f"{query.place}: {error}: {text}") from error


def asked(expression: promql.Expr) -> list[Asked]:
    """Return the metrics that an expression is made of, each with the labels that it is selected or grouped by."""
    return [
        Asked(str(selector.name), frozenset(matcher.name for matcher in selector.matchers.matchers) | grouped)
        for selector, grouped in _selectors(expression, frozenset())
    ]


def own(labels: frozenset[str]) -> frozenset[str]:
    """Leave out the labels that Prometheus gives by itself."""
    return labels - _OF_PROMETHEUS


def _selectors(node: promql.Expr, grouped: frozenset[str]) -> Iterator[tuple[promql.VectorSelector, frozenset[str]]]:
    if isinstance(node, promql.VectorSelector):
        yield node, grouped
    elif isinstance(node, promql.MatrixSelector):
        yield node.vector_selector, grouped
    else:
        if isinstance(node, promql.AggregateExpr):
            grouped = frozenset(node.modifier.labels) if node.modifier else frozenset()
        for child in _children(node):
            yield from _selectors(child, grouped)


def _children(node: promql.Expr) -> Sequence[promql.Expr]:
    match node:
        case promql.BinaryExpr():
            return [node.lhs, node.rhs]
        case promql.Call():
            return list(node.args)
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return [node.expr]
    return []

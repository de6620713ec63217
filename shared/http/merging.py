"""One document out of those of all services: OpenAPI descriptions and Prometheus measurements."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from shared.http.openapi import Component, Document, operations, referred, renamed


def merge_openapi(documents: Mapping[str, Document]) -> Document:
    """Describe the one origin that serves all services.

    A component that two services describe differently gets each service's name in front of its own; so does an
    ``operationId`` that two use. What all describe alike is there once. The arguments are left as they are.

    Args:
        documents: by the service's name.

    Raises:
        ValueError: two services answer the same method at the same path, each in its own way.
    """
    apart = _conflicts(documents)
    repeated = _repeated_operations(documents)
    merged: Document = {"openapi": "3.1.0", "info": {}, "paths": {}, "components": {}}
    for service, document in documents.items():
        own = json.loads(json.dumps(document))
        _rename_operations(own, repeated, service)
        _merge_into(merged, renamed(own, {part: f"{service.capitalize()}{part[1]}" for part in apart}))
        merged["info"] = {**document["info"], "title": "Tenure"}
    return merged


def merge_metrics(texts: Mapping[str, str]) -> bytes:
    """Write the measurements of several services as one exposition, each sample labelled with its service.

    Args:
        texts: by the service's name, in Prometheus' text format.
    """
    registry = CollectorRegistry()
    registry.register(_Labelled(texts))
    return generate_latest(registry)


class _Labelled:
    """A collector of what others have collected."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for service, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    merged.samples.append(sample._replace(labels={"service": service, **sample.labels}))
        return families.values()


def _conflicts(documents: Mapping[str, Document]) -> set[Component]:
    """Find the components that must stay apart: different ones under one name, and those that refer to such."""
    versions: dict[Component, list[Any]] = {}
    for document in documents.values():
        for part, content in _components(document):
            versions.setdefault(part, []).append(content)
    shared = {part: contents for part, contents in versions.items() if len(contents) > 1}
    apart = {part for part, contents in shared.items() if any(content != contents[0] for content in contents)}
    while True:
        also = {part for part, contents in shared.items() if part not in apart and _references(contents[0]) & apart}
        if not also:
            return apart
        apart |= also


def _components(document: Document) -> Iterator[tuple[Component, Any]]:
    for section, components in document.get("components", {}).items():
        for name, content in components.items():
            yield (section, name), content


def _references(content: Any) -> set[Component]:
    if isinstance(content, str):
        target = referred(content)
        return {target} if target else set()
    if isinstance(content, dict | list):
        return set().union(*map(_references, content.values() if isinstance(content, dict) else content))
    return set()


def _repeated_operations(documents: Mapping[str, Document]) -> set[str]:
    """Find the operation ids that name different operations."""
    places: dict[str, set[tuple[str, str]]] = {}
    for document in documents.values():
        for method, path, operation in operations(document):
            places.setdefault(operation["operationId"], set()).add((method, path))
    return {name for name, where in places.items() if len(where) > 1}


def _rename_operations(document: Document, repeated: set[str], service: str) -> None:
    for _, _, operation in operations(document):
        name = operation["operationId"]
        if name in repeated:
            operation["operationId"] = f"{service}{name[0].upper()}{name[1:]}"


def _merge_into(merged: Document, document: Document) -> None:
    for section, components in document.get("components", {}).items():
        merged["components"].setdefault(section, {}).update(components)
    for method, path, operation in operations(document):
        present = merged["paths"].setdefault(path, {}).setdefault(method, operation)
        if present != operation:
            raise ValueError(f"two services describe {method.upper()} {path}")

"""The OpenAPI document: what the framework finds out by itself, and the errors and sentences that it does not."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from shared.http.problems import MEDIA_TYPE, ProblemDocument

Document = dict[str, Any]

Component = tuple[str, str]
"""The section and name of a component, such as ``("schemas", "Tenant")``."""

_PROBLEMS = {
    400: "The request is malformed.",
    401: "There is no API key, or it is not known.",
    404: "There is nothing by that name.",
    409: "The state does not allow it.",
    412: "It has changed since it was read.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A value is wrong; `errors` names each field.",
    428: "`If-Match` is missing.",
    429: "Too many requests; `Retry-After` says when to come back.",
    503: "A needed part is away for the moment; `Retry-After` says when to come back.",
}
_REPLACED = ("HTTPValidationError", "ValidationError")
_REFERENCE = re.compile(r"#/components/(?P<section>\w+)/(?P<name>[\w.-]+)")
_DOCSTRING_SECTION = re.compile(r"^(?:Args|Returns|Raises|Yields|Attributes):", re.MULTILINE)


def described(document: Document, *, names: Mapping[tuple[str, str], str], tag: str) -> Document:
    """Complete the framework's document: problems on every operation, sentences from docstrings, names from the code.

    Args:
        document: as the framework made it; it is used up.
        names: the names of operations by method and path.
        tag: of operations that have none.
    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _REPLACED:
        schemas.pop(name, None)
    schemas |= _problem_schemas()
    document["components"]["responses"] = {f"Problem{status}": _problem(status) for status in _PROBLEMS}
    for method, path, operation in operations(document):
        operation["operationId"] = names.get((method, path), operation["operationId"])
        operation.setdefault("tags", [tag])
        _add_sentences(operation)
        _add_problems(method, path, operation)
    return renamed(document, _own_names(schemas))


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Yield method, path and operation of everything that the document describes."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def renamed(document: Document, names: Mapping[Component, str]) -> Document:
    """Copy a document with some of its components, and all references to them, under other names."""
    components = {
        section: {names.get((section, name), name): _repointed(content, names) for name, content in contents.items()}
        for section, contents in document.get("components", {}).items()
    }
    return {**{key: _repointed(content, names) for key, content in document.items()}, "components": components}


def referred(text: str) -> Component | None:
    """Read the component that a text refers to: the value of a ``$ref`` or of a discriminator's mapping."""
    reference = _REFERENCE.fullmatch(text)
    return (reference["section"], reference["name"]) if reference else None


def _repointed(content: Any, names: Mapping[Component, str]) -> Any:
    if isinstance(content, list):
        return [_repointed(each, names) for each in content]
    if isinstance(content, dict):
        return {key: _repointed(each, names) for key, each in content.items()}
    if isinstance(content, str) and (target := referred(content)) and target in names:
        return f"#/components/{target[0]}/{names[target]}"
    return content


def _own_names(schemas: Document) -> dict[Component, str]:
    """Give generic models their own name, ``TenantPage`` instead of ``Page_Tenant_``, where nothing else has it."""
    titles = Counter(schema.get("title") for schema in schemas.values())
    return {
        ("schemas", name): schema["title"]
        for name, schema in schemas.items()
        if name.endswith("_") and titles[schema["title"]] == 1 and schema["title"] not in schemas
    }


def _problem_schemas() -> Document:
    schema = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "ProblemDocument": schema}


def _problem(status: int) -> Document:
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {"description": _PROBLEMS[status], "content": {MEDIA_TYPE: {"schema": schema}}}


def _add_sentences(operation: Document) -> None:
    summary, _, rest = operation.get("description", "").partition("\n\n")
    if summary:
        operation["summary"] = " ".join(summary.split()).rstrip(".")
    description = _DOCSTRING_SECTION.split(rest)[0].strip()
    if description:
        operation["description"] = description
    else:
        operation.pop("description", None)


def _add_problems(method: str, path: str, operation: Document) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    for status in sorted(_possible(method, path, operation)):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})


def _possible(method: str, path: str, operation: Document) -> set[int]:
    """Tell which problems an operation can answer with."""
    parameters = operation.get("parameters", ())
    possible = {400, 429, 503}
    if operation.get("security"):
        possible |= {401}
    if "{" in path:
        possible |= {404}
    if parameters or "requestBody" in operation:
        possible |= {422}
    if method != "get":
        possible |= {409, 413, 415}
    if any(parameter["name"].lower() == "if-match" for parameter in parameters):
        possible |= {412, 428}
    return possible

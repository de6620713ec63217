"""The OpenAPI document: what the framework finds out by itself, and the errors and sentences that it does not."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.http.problems import MEDIA_TYPE, ProblemDocument

Document = dict[str, Any]

Component = tuple[str, str]
"""The section and name of a component, such as ``("schemas", "Tenant")``."""

_PROBLEMS = {
    400: "The request is malformed.",
    401: "There is neither an API key nor an access token, or it is not good, or not any more.",
    403: "Whoever asks may not do this; `code` says whether the role or a scope is missing.",
    404: "There is nothing by that name.",
    409: "The state does not allow it.",
    412: "It has changed since it was read.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A value is wrong; `errors` names each field.",
    428: "`If-Match` is missing.",
    429: "Too many requests; `Retry-After` says when to come back.",
    431: "The headers are too large.",
    503: "A needed part is away for the moment; `Retry-After` says when to come back.",
}
PROBLEM_CONTENT: Document = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
"""The content of a response that is a problem."""

_PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    429: {"Retry-After": {"required": True, "description": "In seconds.", "schema": {"type": "integer"}}},
    503: {"Retry-After": {"required": True, "description": "In seconds.", "schema": {"type": "integer"}}},
}
_REPLACED = ("HTTPValidationError", "ValidationError")
_REFERENCE = re.compile(r"#/components/(?P<section>\w+)/(?P<name>[\w.-]+)")
_DOCSTRING_SECTION = re.compile(r"^(?:Args|Returns|Raises|Yields|Attributes):", re.MULTILINE)


@dataclass(frozen=True)
class Access:
    """What it takes to use an operation.

    Attributes:
        roles: one of them.
        scopes: one of them.
    """

    roles: Sequence[str]
    scopes: Sequence[str]

    def __str__(self) -> str:
        """Return it as a sentence in Markdown."""
        return f"For {_either(self.roles)}, with the scope {_either([f'`{scope}`' for scope in self.scopes])}."


def described(
    document: Document,
    *,
    names: Mapping[tuple[str, str], str],
    access: Mapping[tuple[str, str], Access],
    tag: str,
) -> Document:
    """Complete the framework's document: problems on every operation, sentences from docstrings, names from the code.

    Args:
        document: as the framework made it; it is used up.
        names: the names of operations by method and path.
        access: what it takes to use those that are not for everybody, likewise.
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
        _add_access(operation, access.get((method, path)))
        _add_problems(method, path, operation)
    return renamed(document, _own_names(schemas))


def problems(*statuses: int) -> dict[int | str, Document]:
    """Declare in a route's ``responses`` the problems that neither its path nor its method, body or headers tell of."""
    return {status: _reference(status) for status in statuses}


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
    headers = {"headers": _PROBLEM_HEADERS[status]} if status in _PROBLEM_HEADERS else {}
    return {"description": _PROBLEMS[status], **headers, "content": PROBLEM_CONTENT}


def _add_sentences(operation: Document) -> None:
    summary, _, rest = operation.get("description", "").partition("\n\n")
    if summary:
        operation["summary"] = " ".join(summary.split()).rstrip(".")
    description = _DOCSTRING_SECTION.split(rest)[0].strip()
    if description:
        operation["description"] = description
    else:
        operation.pop("description", None)


def _add_access(operation: Document, access: Access | None) -> None:
    if access is None:
        return
    operation["x-roles"] = list(access.roles)
    operation["description"] = "\n\n".join(filter(None, [operation.get("description"), str(access)]))


def _either(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _add_problems(method: str, path: str, operation: Document) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    responses |= {str(status): responses.get(str(status), {}) for status in _possible(method, path, operation)}
    operation["responses"] = {status: _completed(status, responses[status]) for status in sorted(responses)}


def _completed(status: str, response: Document) -> Document:
    """Say of a response that is a problem what all problems are; those of other content keep it."""
    if int(status) not in _PROBLEMS or "content" in response:
        return response
    if not response or "$ref" in response:
        return _reference(int(status))
    return {**_problem(int(status)), **response}


def _reference(status: int) -> Document:
    return {"$ref": f"#/components/responses/Problem{status}"}


def _possible(method: str, path: str, operation: Document) -> set[int]:
    """Tell which problems an operation can answer with, besides those that it declares."""
    parameters = operation.get("parameters", ())
    possible = {400, 431, 503}
    if operation.get("security"):
        possible |= {401, 403}
    if "{" in path:
        possible |= {404}
    if parameters or "requestBody" in operation:
        possible |= {422}
    if method != "get":
        possible |= {413, 415}
    if any(parameter["name"].lower() == "if-match" for parameter in parameters):
        possible |= {412, 428}
    return possible

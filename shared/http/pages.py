"""The page at ``/docs``: the OpenAPI document as HTML made on the server, without a script or a request to anywhere.

A bundled browser application would show the same and add half a megabyte, an inline script to the content security
policy and a dependency to follow.
"""

import json
from collections.abc import Iterable
from html import escape
from typing import Any

from starlette.responses import HTMLResponse

from shared.http.openapi import Document, operations

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent);
  --soft: color-mix(in srgb, currentColor 6%, transparent); --accent: light-dark(#0b5cad, #7cb8ff); }
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, sans-serif; margin: 0; display: grid; grid-template-columns: 19rem minmax(0, 60rem) }
nav { position: sticky; top: 0; height: 100vh; overflow: auto; padding: 1.5rem 1rem; font-size: .9rem;
  border-right: 1px solid var(--line) }
nav ol { list-style: none; margin: 0 0 1rem; padding: 0 } nav a { display: block; padding: .15rem .3rem }
main { padding: 2rem 2.5rem 6rem } h1 { margin: 0 } h2 { margin: 3rem 0 .5rem; text-transform: capitalize }
h3 { margin: 2.2rem 0 .3rem; font-size: 1.1rem } h4 { margin: 1rem 0 .3rem; font-size: .9rem; opacity: .75 }
a { color: var(--accent); text-decoration: none } a:hover { text-decoration: underline }
code, pre { font: .88rem/1.5 ui-monospace, monospace }
pre { background: var(--soft); padding: .8rem 1rem; overflow: auto; border-radius: .4rem }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
td, th { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line) }
.method { font-weight: 700; text-transform: uppercase; font-size: .8rem; color: var(--accent) } .soft { opacity: .7 }
@media (max-width: 55rem) {
  body { display: block } nav { position: static; height: auto; border: 0 } main { padding: 1rem }
}
"""


def documentation_page(document: Document) -> HTMLResponse:
    """Render an OpenAPI document for people."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    by_tag: dict[str, list[tuple[str, str, Document]]] = {}
    for method, path, operation in operations(document):
        by_tag.setdefault(operation["tags"][0], []).append((method, path, operation))
    schemas = document.get("components", {}).get("schemas", {})
    sections = "".join(_section(tag, each) for tag, each in by_tag.items())
    schema_section = "".join(_schema(name, schema) for name, schema in sorted(schemas.items()))
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{_STYLE}</style><nav>{_contents(by_tag)}</nav><main><h1>{title}</h1>"
        f"<p>Every request but the public ones carries <code>Authorization: Bearer &lt;key&gt;</code>. Every error "
        f"is a <a href='#schema-ProblemDocument'>problem document</a> (RFC 9457). For machines: "
        f"<a href='openapi.json'>openapi.json</a>.</p>{sections}<h2>Schemas</h2>{schema_section}</main></html>",
        headers=_HEADERS,
    )


def _contents(by_tag: dict[str, list[tuple[str, str, Document]]]) -> str:
    return "".join(
        f"<b>{escape(tag)}</b><ol>"
        + "".join(f"<li><a href='#{_anchor(each)}'>{escape(each['summary'])}</a></li>" for _, _, each in group)
        + "</ol>"
        for tag, group in by_tag.items()
    )


def _section(tag: str, group: Iterable[tuple[str, str, Document]]) -> str:
    return f"<h2>{escape(tag)}</h2>" + "".join(_operation(*each) for each in group)


def _operation(method: str, path: str, operation: Document) -> str:
    access = "" if operation.get("security") else " <span class=soft>public</span>"
    return (
        f"<section id='{_anchor(operation)}'><h3>{escape(operation['summary'])}</h3>"
        f"<p><span class=method>{escape(method)}</span> <code>{escape(path)}</code>{access}</p>"
        f"{_paragraphs(operation.get('description', ''))}{_parameters(operation)}{_request(operation)}"
        f"{_responses(operation)}<pre>{escape(_example(method, path, operation))}</pre></section>"
    )


def _parameters(operation: Document) -> str:
    rows = [
        (
            f"<code>{escape(each['name'])}</code>",
            f"{escape(each['in'])}{', required' if each.get('required') else ''}",
            _type(each.get("schema", {})),
            escape(each.get("description", "")),
        )
        for each in operation.get("parameters", ())
    ]
    return f"<h4>Parameters</h4>{_table(rows)}" if rows else ""


def _request(operation: Document) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    return "".join(
        f"<h4>Body</h4><p><code>{escape(media_type)}</code> {_type(each.get('schema', {}))}</p>"
        for media_type, each in content.items()
    )


def _responses(operation: Document) -> str:
    return f"<h4>Answers</h4>{_table([_response(*each) for each in operation['responses'].items()])}"


def _response(status: str, response: Document) -> tuple[str, ...]:
    if "$ref" in response:
        return (status, "<a href='#schema-ProblemDocument'>ProblemDocument</a>")
    types = " ".join(_type(each.get("schema", {})) for each in response.get("content", {}).values())
    return (status, f"{types} {escape(response.get('description', ''))}")


def _schema(name: str, schema: Document) -> str:
    required = schema.get("required", ())
    rows = [
        (
            f"<code>{escape(key)}</code>{' *' if key in required else ''}",
            _type(each),
            escape(each.get("description", "")),
        )
        for key, each in schema.get("properties", {}).items()
    ]
    body = _table(rows) if rows else f"<p>{_type(schema)}</p>"
    description = _paragraphs(schema.get("description", ""))
    return f"<section id='schema-{escape(name)}'><h3>{escape(name)}</h3>{description}{body}</section>"


def _type(schema: Any) -> str:
    """Write a schema in a few words, with links to the ones it refers to."""
    if not isinstance(schema, dict):
        return ""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#schema-{name}'>{name}</a>"
    if branches := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " or ".join(_type(branch) for branch in branches)
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(" ".join(str(part) for part in (schema.get("type", "any"), schema.get("format")) if part))


def _example(method: str, path: str, operation: Document) -> str:
    lines = [f"curl -X {method.upper()} http://127.0.0.1:8080{path}"]
    if operation.get("security"):
        lines.append("-H 'Authorization: Bearer '$TENURE_ADMIN_KEY")
    for media_type in operation.get("requestBody", {}).get("content", {}):
        lines += [f"-H 'Content-Type: {media_type}'", "-d @body"]
    return " \\\n  ".join(lines)


def _table(rows: Iterable[Iterable[str]]) -> str:
    return f"<table>{''.join(f'<tr>{_cells(row)}</tr>' for row in rows)}</table>"


def _cells(row: Iterable[str]) -> str:
    return "".join(f"<td>{cell}</td>" for cell in row)


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph.strip())


def _anchor(operation: Document) -> str:
    return f"operation-{escape(operation['operationId'])}"

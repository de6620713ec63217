"""What every answer must be, besides what its document says of it."""

import re

import schemathesis
from pydantic import ValidationError
from schemathesis import Case, CheckContext, Response

from shared.http import ProblemDocument
from shared.http.problems import MEDIA_TYPE

_ERRORS = range(400, 600)
_SERVER_ERRORS = range(500, 600)
_TRACEBACK = re.compile(rb'Traceback \(most recent call last\)|File \\?"[^"\n]+\.py\\?", line \d+')

BUSY = frozenset({"overloaded", "members_changing"})
"""The codes of a 503 that is no mistake: there is too much to do, or somebody else does it at this very moment."""

PAGE = "/oauth/authorize"
"""People look at what this answers, so its errors may be the page again."""

GATE = "/v1/authorize"
"""What this goes by must not be old: where too much is going on to read it within a second, nobody passes."""

FORMS = frozenset({"/oauth/token", "/oauth/revoke"})
BEFORE = frozenset(
    {"malformed_json", "malformed_query", "unsupported_media_type", "method_not_allowed", "body_too_large"}
)
"""The codes of what is refused before anybody knows what it is about."""


@schemathesis.check
def errors_are_problems(_: CheckContext, response: Response, case: Case) -> None:  # type: ignore[type-arg]
    """Hold every error against the one form that errors have, whichever status it is."""
    status = response.status_code
    if status not in _ERRORS:
        return
    assert not _TRACEBACK.search(response.content), "it shows a traceback"
    if case.path.startswith(PAGE) and response.headers.get("content-type", [""])[0].startswith("text/html"):
        return
    assert response.headers.get("content-type") == [MEDIA_TYPE], f"it is no {MEDIA_TYPE}"
    try:
        problem = ProblemDocument.model_validate_json(response.content)
    except ValidationError as error:
        raise AssertionError(f"it is no problem: {error}") from None
    assert problem.status == status, f"it says that the status is {problem.status}"
    if case.path in FORMS and case.method == "POST" and problem.code not in BEFORE:
        assert response.json()["error"] == problem.code, "it lacks what OAuth has"


@schemathesis.check
def nothing_is_away(_: CheckContext, response: Response, case: Case) -> None:  # type: ignore[type-arg]
    """Let no 5xx pass but a 503 of a service that has too much to do, which is allowed to say so."""
    if response.status_code in _SERVER_ERRORS:
        code = response.json().get("code") if response.status_code == 503 else None
        assert code in BUSY or (case.path == GATE and code == "unavailable"), "a server error"

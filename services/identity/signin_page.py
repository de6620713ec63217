"""The page on which people sign in: made on the server, without a script or a request to anywhere else."""

from collections.abc import Mapping
from html import escape

from starlette.responses import HTMLResponse

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 22%, transparent);
  --accent: light-dark(#0b5cad, #7cb8ff); --bad: light-dark(#a4161a, #ff9b9b) }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; min-height: 100vh; display: grid; place-items: center }
main { width: min(24rem, 92vw); padding: 2rem 0 }
h1 { font-size: 1.4rem; margin: 0 0 .3rem } p { margin: 0 0 1.2rem } .soft { opacity: .75 }
label { display: block; margin: 0 0 1rem; font-size: .95rem }
input { display: block; width: 100%; margin-top: .3rem; padding: .6rem .7rem; font: inherit; color: inherit;
  background: transparent; border: 1px solid var(--line); border-radius: .4rem }
input:focus-visible, button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
button { width: 100%; padding: .65rem; font: inherit; font-weight: 600; border: 0; border-radius: .4rem;
  background: var(--accent); color: light-dark(white, #06223f); cursor: pointer }
button + button { margin-top: .6rem; background: transparent; color: inherit; border: 1px solid var(--line) }
[role=alert] { border-left: 3px solid var(--bad); padding: .4rem .8rem; color: var(--bad) }
"""


_ORGANISATION = "<button formaction=/oauth/authorize/organisation formnovalidate>Sign in with my organisation</button>"
"""Sends the same form elsewhere; the password, if one was typed, is not looked at there."""


def signin_page(
    application: str, hidden: Mapping[str, str], *, email: str = "", complaint: str | None = None, status: int = 200,
    headers: Mapping[str, str] | None = None, has_organisations: bool = False,
) -> HTMLResponse:  # fmt: skip
    """Ask for address and password.

    Args:
        application: its name, which the user is told.
        hidden: fields that go along with the form.
        complaint: why the last attempt did not succeed.
        headers: more of them.
        has_organisations: whether there is anybody who signs in elsewhere.
    """
    fields = "".join(
        f'<input type=hidden name="{escape(name)}" value="{escape(value)}">' for name, value in hidden.items()
    )
    alert = f"<p role=alert>{escape(complaint)}</p>" if complaint else ""
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Sign in</title><style>{STYLE}</style><main><h1>Sign in</h1>"
        f"<p class=soft>to continue to {escape(application)}</p>{alert}"
        f"<form method=post action=/oauth/authorize>{fields}"
        f"<label>E-mail address<input name=email type=email autocomplete=username required maxlength=254"
        f' value="{escape(email)}"{"" if email else " autofocus"}></label>'
        f"<label>Password<input name=password type=password autocomplete=current-password required maxlength=200"
        f"{' autofocus' if email else ''}></label>"
        f"<button>Sign in</button>{_ORGANISATION if has_organisations else ''}</form></main></html>",
        status,
        _headers() | dict(headers or {}),
    )


def _headers() -> dict[str, str]:
    return {
        # No form-action: browsers hold it against the redirect to the application too.
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
        "base-uri 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }

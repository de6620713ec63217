"""The page that an invitation's link opens. Its token is in the fragment, which only the page's script can read."""

import base64
import hashlib

from starlette.responses import HTMLResponse

from services.identity.signin_page import STYLE

_SCRIPT = """
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const form = document.querySelector("form"), alert = document.querySelector("[role=alert]");
const tell = (text) => { alert.textContent = text; alert.hidden = !text; };
// Out of the address bar and the history, where it would outlast the page.
history.replaceState(null, "", location.pathname);
if (!token) { tell("Open the link of the mail, all of it."); form.hidden = true; }
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const password = form.elements.password.value;
  form.elements.accept.disabled = true;
  try {
    const answer = await fetch("/v1/invitations/accept", {
      method: "POST", headers: {"Content-Type": "application/json"},
      body: JSON.stringify(password ? {token, password} : {token}),
    });
    if (answer.ok) {
      form.hidden = true; tell("");
      document.querySelector("p").textContent = "Accepted. You can sign in now.";
    } else { tell((await answer.json()).detail); }
  } catch { tell("Nobody answers at this moment. Try again."); }
  form.elements.accept.disabled = false;
});
"""

_SCRIPT_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()

_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_SCRIPT_HASH}'; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def acceptance_page() -> HTMLResponse:
    """Ask for a password, and send it with the token that the page was opened with."""
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Accept an invitation</title><style>{STYLE}</style><main><h1>Accept an invitation</h1>"
        "<p class=soft>Choose a password of at least 12 characters, or leave it empty if you have one here already.</p>"
        "<p role=alert hidden></p>"
        "<form><label>Password<input name=password type=password autocomplete=new-password maxlength=200 autofocus>"
        f"</label><button name=accept>Accept</button></form></main><script>{_SCRIPT}</script></html>",
        headers=_HEADERS,
    )

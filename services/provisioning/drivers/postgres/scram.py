"""What Postgres keeps of a password, computed on this side so that the password itself never travels in a statement."""

import hashlib
import hmac
import secrets
from base64 import b64encode

_ITERATIONS = 4096
_SALT_BYTES = 16


def scram_verifier(password: str, *, salt: bytes | None = None) -> str:
    """Return the SCRAM-SHA-256 verifier of a password, in the form of ``pg_authid.rolpassword``.

    Args:
        password: ASCII, so that there is nothing to normalise (RFC 5802, section 2.2).
        salt: random unless given.
    """
    salt = salt or secrets.token_bytes(_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    return f"SCRAM-SHA-256${_ITERATIONS}:{_base64(salt)}${_base64(stored_key)}:{_base64(server_key)}"


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")

"""Passwords for Amazon's SMTP server, which are derived from secret access keys.

https://docs.aws.amazon.com/ses/latest/dg/smtp-credentials.html
"""

import base64
import hmac

_DATE, _SERVICE, _TERMINAL, _MESSAGE = "11111111", "ses", "aws4_request", "SendRawEmail"
_VERSION = b"\x04"


def smtp_password(secret_access_key: str, region: str) -> str:
    """Return the SMTP password that belongs to a secret access key in a region."""
    key = f"AWS4{secret_access_key}".encode()
    for part in (_DATE, region, _SERVICE, _TERMINAL, _MESSAGE):
        key = hmac.digest(key, part.encode(), "sha256")
    return base64.b64encode(_VERSION + key).decode()


def smtp_host(region: str) -> str:
    """Return where a region's SMTP server is; it listens on port 587 with STARTTLS."""
    return f"email-smtp.{region}.amazonaws.com"

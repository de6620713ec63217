"""Who asks: principals, and the tokens and API keys that prove them."""

from shared.access.authenticator import Authenticator, Credentials, KnownCredentials
from shared.access.principal import ADMINISTRATOR, EVERYTHING, MEMBERS, OPERATORS, Principal, Role

__all__ = [
    "ADMINISTRATOR",
    "EVERYTHING",
    "MEMBERS",
    "OPERATORS",
    "Authenticator",
    "Credentials",
    "KnownCredentials",
    "Principal",
    "Role",
]

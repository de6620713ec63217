"""Passwords: how they are hashed, compared and refused.

Argon2id with 19 MiB, two passes and one lane, the first choice of OWASP's Password Storage Cheat Sheet for machines
that have other things to do: about 50 ms of one core. It runs in a few threads of its own, so that a storm of sign-ins
neither holds up the event loop nor takes all the memory.
"""

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from shared.http import FieldError, Problem

SHORTEST, LONGEST = 12, 200
"""How many characters a password has (NIST SP 800-63B-4 asks for at least eight, ASVS 5.0 recommends fifteen)."""

_THREADS = 2
_MOST_WAITING = 100
_SECONDS = 10.0

_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_THREAD_POOL: Final = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")
_NOBODYS = "$argon2id$v=19$m=19456,t=2,p=1$jpbMq/uJpxMxn4EK9waqJQ$huSTH8Q/9m96MhQKaRr2Zhj+1re1j5YhEG0j9N7SwvA"
_COMMON = frozenset(
    {"123456789012", "1234567890123", "password1234", "passwordpassword", "qwertyuiop12", "qwertyuiopas",
     "administrator", "letmeinletmein", "iloveyou1234", "welcome12345", "changemechangeme", "correcthorsebatterystaple"}
)  # fmt: skip

Result = TypeVar("Result")

_waiting = 0


async def hash_password(password: str) -> str:
    """Return what is kept of a password.

    Raises:
        Problem: 503 when too many are being hashed already.
    """
    return await _in_thread(lambda: _HASHER.hash(normalised(password)))


async def is_right(password: str, hashed: str | None) -> bool:
    """Return whether a password is the one; where there is none the answer takes as long.

    Raises:
        Problem: 503 when too many are being hashed already.
    """
    matches = await _in_thread(lambda: _matches(normalised(password), hashed or _NOBODYS))
    return matches and hashed is not None


def is_outdated(hashed: str) -> bool:
    """Return whether a password should be hashed anew, because the parameters are others by now."""
    return _HASHER.check_needs_rehash(hashed)


def check_password(password: str, *, email: str, pointer: str = "/password") -> None:
    """Refuse what is guessed first.

    Raises:
        Problem: 422 that names the field and says why.
    """
    if reason := _weakness(password, email):
        raise Problem(422, code="weak_password", detail=reason, errors=[FieldError(pointer, reason)])


def normalised(password: str) -> str:
    """Return the same text for the same password, whichever keyboard wrote it (NIST SP 800-63B-4, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def _weakness(password: str, email: str) -> str | None:
    folded = password.casefold()
    if not SHORTEST <= len(password) <= LONGEST:
        return f"A password has {SHORTEST} to {LONGEST} characters."
    if folded in _COMMON or len(set(folded)) < 4:  # noqa: PLR2004 - "aaaaaaaaaaab" has two
        return "This password is one of those that are tried first."
    if email.casefold().partition("@")[0] in folded and len(folded) < SHORTEST + len(email):
        return "This password is much like the e-mail address."
    return None


def _matches(password: str, hashed: str) -> bool:
    try:
        return _HASHER.verify(hashed, password)
    except (Argon2Error, InvalidHashError):
        return False


async def _in_thread(work: Callable[[], Result]) -> Result:
    global _waiting  # noqa: PLW0603 - the bound is the process's, like the threads
    if _waiting >= _MOST_WAITING:
        raise Problem(
            503, code="overloaded", detail="Too many are signing in at this moment.", headers={"Retry-After": "2"}
        )
    _waiting += 1
    try:
        async with asyncio.timeout(_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(_THREAD_POOL, work)
    finally:
        _waiting -= 1

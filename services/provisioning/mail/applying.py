"""How a tenant's account is made to send or not: as it is wished, by and by, and as often as it takes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, runtime_checkable

import structlog

from services.provisioning.drivers import DriverUnavailableError, Environment, NoEnvironmentError
from services.provisioning.drivers.registry import Drivers
from services.provisioning.jobs.job import Settings
from services.provisioning.queries import mail as queries
from shared.clock import Clock
from shared.postgres import Pool, transaction
from shared.repeating import repeat

log = structlog.get_logger(__name__)

CLAIM = timedelta(seconds=90)
"""How long after its holder has died a wish is tried again: longer than a call can take that nobody waits for."""

_EVERY_SECONDS = 2.0
_AT_ONCE = 8
_TRY_SECONDS = 60.0
_FIRST_WAIT, _LONGEST_WAIT = timedelta(seconds=5), timedelta(minutes=10)
_MOST_DOUBLINGS = 10


@runtime_checkable
class Switch(Protocol):
    """A driver that can let a tenant send mail from its environment, or not."""

    async def let_send_mail(self, environment: Environment, *, is_allowed: bool) -> None:
        """Let mail be sent from now on, or none, whoever asks.

        Raises:
            NoEnvironmentError: there is nothing from which mail could be sent.
            DriverUnavailableError: it cannot be done at the moment.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Tried:
    """A wish, and why it was not fulfilled; None where it was."""

    wish: queries.Wish
    problem: str | None


class Applying:
    """Fulfils wishes, each at one place at a time and the newest in the end."""

    def __init__(self, pool: Pool, drivers: Drivers, *, clock: Clock) -> None:
        self._pool = pool
        self._drivers = drivers
        self._clock = clock

    async def run(self) -> None:
        """Fulfil wishes for ever."""
        await repeat("mail", self.apply_all, lambda: self._clock.sleep(_EVERY_SECONDS), clock=self._clock)

    async def apply_all(self) -> None:
        """Try all that is due."""
        while await self.apply() == _AT_ONCE:
            pass

    async def apply(self) -> int:
        """Try some wishes that are due, all at once, and return how many."""
        now = self._clock.now()
        async with transaction(self._pool) as connection:
            wishes = await queries.claim_wishes(connection, now=now, until=now + CLAIM, limit=_AT_ONCE)
        if wishes:
            await self._settle(await asyncio.gather(*(self._try(each) for each in wishes)))
        return len(wishes)

    async def _try(self, wish: queries.Wish) -> _Tried:
        environment = Settings.of(wish.environment)
        switch = self._drivers.find(environment.driver)
        if not isinstance(switch, Switch):
            return _Tried(wish, f"The driver {environment.driver!r} is not there or cannot do this.")
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                await switch.let_send_mail(environment.for_driver(), is_allowed=not wish.is_paused)
        except TimeoutError:
            return _Tried(wish, f"It has taken longer than {_TRY_SECONDS:g} s.")
        except NoEnvironmentError:
            return _Tried(wish, "There is nothing from which mail could be sent.")
        except DriverUnavailableError as error:
            return _Tried(wish, str(error))
        except Exception as error:  # whatever is wrong with one must not hold up the others
            log.exception("mail not switched by mistake", action="mail_switch_failed", tenant_id=wish.tenant_id)
            return _Tried(wish, f"It has failed: {type(error).__name__}.")
        return _Tried(wish, None)

    async def _settle(self, tried: Sequence[_Tried]) -> None:
        now = self._clock.now()
        settled = [
            queries.Settled(
                each.wish.tenant_id,
                each.wish.number,
                each.problem,
                None if each.problem is None else now + _wait(each.wish.attempts),
            )
            for each in tried
        ]
        async with transaction(self._pool) as connection:
            await queries.settle_wishes(connection, settled, now=now)
        for each in tried:
            _log(each)


def _wait(attempts: int) -> timedelta:
    return min(_LONGEST_WAIT, _FIRST_WAIT * float(2 ** min(attempts - 1, _MOST_DOUBLINGS)))


def _log(tried: _Tried) -> None:
    wish = tried.wish
    if tried.problem is None:
        log.info("mail switched", action="mail_switched", tenant_id=wish.tenant_id, is_paused=wish.is_paused)
        return
    log.warning(
        "mail not switched",
        action="mail_not_switched",
        tenant_id=wish.tenant_id,
        is_paused=wish.is_paused,
        attempts=wish.attempts,
        error=tried.problem,
    )

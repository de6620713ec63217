"""The retry ladder: a failed message waits longer each time and ends in parking, where an operator finds it."""

from collections.abc import Sequence

import structlog

from shared.clock import Clock
from shared.ids import Ids
from shared.messaging.admission import ATTEMPT, ORIGIN, TRIED, Arrival, Rejected, Unknown
from shared.messaging.bus import Bus, BusUnavailableError, Outcome, Parcel
from shared.messaging.event import BATCH, join_batch
from shared.messaging.topology import RETRY_DELAYS, retry_exchange_of
from shared.tracing import spans

log = structlog.get_logger(__name__)

REASON = "tenure-reason"
"""Header of a parked message: ``undecodable``, ``unknown``, ``forged``, ``failed`` or, of usage, ``refused``."""

DETAIL = "tenure-detail"
"""Header of a parked message: a sentence for the operator."""

PARKED_AT = "tenure-parked-at"
"""Header of a parked message: RFC 3339."""

USER = "tenure-user"
"""Header of a parked message: the login that had published it."""

LOOKS_AT_UNKNOWN = 12
"""How often a message without a handler waits for newer code: with the delays of the ladder, for five minutes."""

_DETAIL_CHARACTERS = 500
_ATTEMPTS = 5


class Ladder:
    """Publishes what could not be handled to the service's own retry queues and parking."""

    def __init__(self, *, service: str, bus: Bus, clock: Clock, ids: Ids) -> None:
        self._service = service
        self._bus = bus
        self._clock = clock
        self._ids = ids

    async def climb(self, arrival: Arrival, error: Exception) -> None:
        """Let a failed message wait for its next attempt; park it after the last.

        Raises:
            BusUnavailableError: it could be put nowhere; it must not be acknowledged.
        """
        if arrival.attempt >= len(RETRY_DELAYS):
            await self._give_up(arrival, "failed", f"{type(error).__name__}: {error}")
        else:
            await self._wait(arrival)

    async def wait_for_newer_code(self, unknown: Unknown) -> None:
        """Let a message without a handler wait until code that knows it may be deployed; park it after minutes.

        Raises:
            BusUnavailableError: it could be put nowhere; it must not be acknowledged.
        """
        if unknown.attempt >= LOOKS_AT_UNKNOWN:
            await self._give_up(unknown, "unknown", unknown.detail)
        else:
            await self._wait(unknown)

    async def park(self, *rejected: Rejected) -> None:
        """Put aside what can never be handled.

        Raises:
            BusUnavailableError: some could be put nowhere; none of them must be acknowledged.
        """
        await self._publish([self._parked(each) for each in rejected])

    def _parked(self, rejected: Rejected) -> Parcel:
        log.error("message parked", action="message_parked", reason=rejected.reason, detail=rejected.detail)
        headers = self._parking_headers(rejected.reason, rejected.detail, rejected.origin, 0)
        return self._parcel("parking", rejected.body, rejected.content_type, headers | {USER: rejected.user_id})

    async def _wait(self, waiting: Arrival | Unknown) -> None:
        delay = RETRY_DELAYS[min(waiting.attempt, len(RETRY_DELAYS) - 1)]
        log.warning("message waits", action="message_retried", delay_seconds=delay)
        headers: dict[str, str | int] = {ATTEMPT: waiting.attempt + 1, ORIGIN: waiting.origin}
        if tried := spans.current():
            headers[TRIED] = tried
        await self._publish([self._parcel(f"retry.{delay}s", join_batch([waiting.raw]), BATCH, headers)])

    async def _give_up(self, waiting: Arrival | Unknown, reason: str, detail: str) -> None:
        log.error("message parked", action="message_parked", reason=reason, detail=detail)
        headers = self._parking_headers(reason, detail, waiting.origin, waiting.attempt)
        await self._publish([self._parcel("parking", join_batch([waiting.raw]), BATCH, headers)])

    def _parking_headers(self, reason: str, detail: str, origin: str, attempt: int) -> dict[str, str | int]:
        return {
            REASON: reason,
            DETAIL: detail[:_DETAIL_CHARACTERS],
            PARKED_AT: self._clock.now().isoformat(),
            ORIGIN: origin,
            ATTEMPT: attempt,
        }

    def _parcel(self, key: str, body: bytes, content_type: str, headers: dict[str, str | int]) -> Parcel:
        return Parcel(
            exchange=retry_exchange_of(self._service),
            routing_key=key,
            body=body,
            content_type=content_type,
            message_id=str(self._ids.new()),
            headers=headers,
        )

    async def _publish(self, parcels: Sequence[Parcel]) -> None:
        attempts = 0
        while attempts < _ATTEMPTS:
            outcomes = await self._bus.publish(parcels)
            parcels = [each for each, became in zip(parcels, outcomes, strict=True) if became is not Outcome.CONFIRMED]
            if not parcels:
                return
            # As long as the broker takes nothing there is no use in giving the message back: that is counted, too.
            attempts += Outcome.HELD not in outcomes
            await self._clock.sleep(1.0)
        raise BusUnavailableError(f"could not publish to {parcels[0].exchange}")

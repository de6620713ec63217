"""Bugs in the kernel: inbox, outbox, barrier, ladder."""

from tests.mutants.defect import Defect

_CONSUMER = "shared/messaging/consumer.py"
_OUTBOX = "shared/messaging/outbox.py"
_BARRIER = "shared/messaging/barrier.py"
_DISPATCH = "shared/messaging/dispatch.py"
_EXACTLY_ONCE = ("shared/tests/test_messaging_exactly_once.py",)
_CONSUMER_TESTS = ("shared/tests/test_messaging_consumer.py", *_EXACTLY_ONCE)
_OUTBOX_TESTS = ("shared/tests/test_messaging_outbox.py", *_EXACTLY_ONCE)
_BARRIER_TESTS = ("shared/tests/test_messaging_barrier.py", "shared/tests/test_messaging_dispatch.py")

DEFECTS = (
    Defect(
        "the inbox is skipped",
        _CONSUMER,
        "for arrival in arrivals if arrival.event.id in fresh}",
        "for arrival in arrivals}",
        _CONSUMER_TESTS,
    ),
    Defect(
        "messages are acknowledged before the commit",
        _CONSUMER,
        "                outgoing = await self._settle(deliveries)\n",
        "                await consumption.acknowledge(deliveries[-1])\n"
        "                outgoing = await self._settle(deliveries)\n",
        _CONSUMER_TESTS,
    ),
    Defect(
        "answers are published before the commit",
        _CONSUMER,
        '            await failpoint("handled")\n',
        '            await self._relay.send(outgoing)\n            await failpoint("handled")\n',
        _CONSUMER_TESTS,
    ),
    Defect(
        "answers are sent from memory only",
        _CONSUMER,
        "            await outbox.insert(connection, outgoing, now=now)\n",
        "",
        _CONSUMER_TESTS,
    ),
    Defect(
        "a failed batch is not split",
        _CONSUMER,
        "        if len(arrivals) > 1:\n            log.warning(",
        "        if False:\n            log.warning(",
        _CONSUMER_TESTS,
    ),
    Defect(
        "an outage of the database counts as an attempt",
        _CONSUMER,
        "                if not is_unavailable(error):\n                    raise\n                outages += 1\n",
        "                raise\n                outages += 1\n",
        _CONSUMER_TESTS,
    ),
    Defect(
        "a message that cannot be handled is tried for ever",
        "shared/messaging/ladder.py",
        "        if arrival.attempt >= len(RETRY_DELAYS):\n",
        "        if arrival.attempt < 0:\n",
        ("shared/tests/test_messaging_ladder.py",),
    ),
    Defect(
        "a message that only newer code knows is parked at once",
        "shared/messaging/ladder.py",
        "        if unknown.attempt >= LOOKS_AT_UNKNOWN:\n",
        "        if unknown.attempt >= 0:\n",
        ("shared/tests/test_messaging_ladder.py",),
    ),
    Defect(
        "an unknown outcome counts as confirmed",
        _OUTBOX,
        "                if outcome is Outcome.CONFIRMED:\n",
        "                if outcome is not Outcome.UNROUTABLE:\n",
        _OUTBOX_TESTS,
    ),
    Defect(
        "the sweeper takes no lease",
        _OUTBOX,
        "        now + LEASE,\n",
        "        now,\n",
        _OUTBOX_TESTS,
    ),
    Defect(
        "what is sent again has a new id",
        _OUTBOX,
        'Outgoing(row["id"], row["exchange"], row["routing_key"], row["event"]) for row in in_order',
        'Outgoing(row["id"], row["exchange"], row["routing_key"], '
        'row["event"].replace(str(row["id"])[-6:].encode(), b"abcdef")) for row in in_order',
        _OUTBOX_TESTS,
    ),
    Defect(
        "what was confirmed stays in the outbox",
        _OUTBOX,
        "                await delete(connection, confirmed)\n",
        "                pass\n",
        _OUTBOX_TESTS,
    ),
    Defect(
        "the sweeper keeps the lease of what it could not send",
        _OUTBOX,
        "                    await self._give_back(unsent)\n",
        "",
        _OUTBOX_TESTS,
    ),
    Defect(
        "the barrier is dropped",
        _DISPATCH,
        "        entered = await barrier.enter(connection, asks)\n",
        "        entered = barrier.Entered(asks, {})\n",
        ("shared/tests/test_messaging_dispatch.py",),
    ),
    Defect(
        "an undo leaves no tombstone",
        _DISPATCH,
        "        befores = await barrier.close(connection, undos)\n",
        "        befores: dict[barrier.Key, object] = {}\n",
        _BARRIER_TESTS[::-1],
    ),
    Defect(
        "what was found before is given out twice",
        _BARRIER,
        "    if befores:\n        await _forget_befores(connection, befores)\n",
        "",
        _BARRIER_TESTS,
    ),
    Defect(
        "what was found before is kept for ever",
        _DISPATCH,
        "            await barrier.forget(connection, asks, own=is_final)\n",
        "            pass\n",
        _BARRIER_TESTS[::-1],
    ),
    Defect(
        "a refusal that may be asked again is final",
        _BARRIER,
        "    return isinstance(answer, Refusal) and answer.retryable\n",
        "    return False\n",
        _BARRIER_TESTS,
    ),
    Defect(
        "an undone operation is answered as if it were done",
        _BARRIER,
        "state = 'undone', answer_type = NULL, answer = NULL\n",
        "state = 'undone'\n",
        _BARRIER_TESTS,
    ),
    Defect(
        "whoever forges the publisher is believed",
        "shared/messaging/admission.py",
        "            self._check_publisher(event, origin)\n",
        "",
        ("shared/tests/test_messaging_admission.py",),
    ),
)

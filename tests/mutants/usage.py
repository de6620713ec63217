"""Bugs in what is counted and in what it costs."""

from tests.mutants.defect import Defect

_RECORDER = ("services/metrics/tests/test_recorder.py",)
_EVENTS = ("services/metrics/tests/test_recording_event.py",)
_ROLLUP = ("services/metrics/tests/test_rollup.py",)
_QUOTAS = ("services/metrics/tests/test_quotas.py",)
_AMENDMENTS = ("services/metrics/tests/test_amendments.py",)
_PRICES = ("services/billing/tests/test_pricing.py", "services/billing/tests/test_previews.py")
_PRORATION = ("services/billing/tests/test_proration.py", "services/billing/tests/test_previews.py")

DEFECTS = (
    Defect(
        "a usage event that is sent again counts again",
        "services/metrics/recording/recorder.py",
        "        arrived = [each for each in taken if each.place in fresh and firsts[each.place] is each]\n",
        "        arrived = taken\n",
        _RECORDER,
    ),
    Defect(
        "usage is not added up in the transaction that keeps it",
        "services/metrics/recording/recorder.py",
        "            await queries.add_hours(connection, rollup.totals)\n",
        "",
        _RECORDER,
    ),
    Defect(
        "usage under two sources and ids that read alike together is one event",
        "services/metrics/recording/event.py",
        "    return _hash([source, id_])\n",
        '    return _hash([f"{source}-{id_}"])\n',
        (*_EVENTS, *_RECORDER),
    ),
    Defect(
        "usage is whose the event says it is",
        "services/metrics/recording/event.py",
        "        if subject is None or subject == tenant_id:\n            return tenant_id\n",
        "        if subject is None or subject != tenant_id:\n            return subject or tenant_id\n",
        _EVENTS,
    ),
    Defect(
        "of usage at one moment the latest is what came last",
        "services/metrics/recording/rollup.py",
        "        return max(one, other, key=_moment)\n",
        "        return max(other, one, key=lambda total: total.at)\n",
        (*_ROLLUP, *_RECORDER),
    ),
    Defect(
        "usage beyond a hard quota is taken where it comes at once",
        "services/metrics/queries/quota_use.py",
        "                    ELSE peak <= 0 OR coalesce(kept.used, 0) + peak <= ceiling\n",
        "                    ELSE true\n",
        _QUOTAS,
    ),
    Defect(
        "corrected usage is held against a quota as it was",
        "services/metrics/amending.py",
        '    await _forget_use(act.connection, asked, [meter["name"] for meter in meters], hour, time_zone)\n',
        "",
        _AMENDMENTS,
    ),
    Defect(
        "the price of a tier begins with its bound",
        "services/billing/pricing.py",
        "        return self.up_to is None or quantity <= self.up_to\n",
        "        return self.up_to is None or quantity < self.up_to\n",
        _PRICES,
    ),
    Defect(
        "the price of a package that is begun is not charged",
        "services/billing/pricing.py",
        "            packages = full + (1 if begun else 0)\n",
        "            packages = full\n",
        _PRICES,
    ),
    Defect(
        "a prorated price does not know that clocks are changed",
        "services/billing/proration.py",
        "    start, at, end = (each.astimezone(UTC) for each in (change.start, change.at, change.end))\n",
        "    start, at, end = change.start, change.at, change.end\n",
        _PRORATION,
    ),
)

"""The end of all charging, with its undo: the final invoice is drafted, once it is known what was used.

From an account that is closed nothing is due any more but what is on its draft, which is issued when the account is
purged and goes when it is opened again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from services.billing import books, dossiers, queries
from services.billing.charging import Before, Ledger, Subscription
from services.billing.dossiers import Dossier, Period
from services.billing.issuing import CLOSING, Draft, draft
from services.billing.usage import usage_requested
from shared.clock import Clock
from shared.contracts import billing as contracts
from shared.contracts.base import Fact
from shared.messaging.subscriptions import Changed, Restoration
from shared.postgres import Connection


async def close_accounts(
    connection: Connection, asks: Sequence[contracts.CloseAccount], *, clock: Clock
) -> Sequence[Changed]:
    """End all charging and draft the final invoices; an account that is closed already has its draft.

    What was used is known first: as long as metrics has not told it, the ask may be repeated.
    """
    ledger = await books.read(connection, asks)
    tenant_ids = sorted({ask.tenant_id for ask in asks})
    drafts = await queries.invoices.drafts(connection, tenant_ids)
    accounts = await dossiers.read(connection, await queries.invoicing.accounts(connection, tenant_ids))
    now = clock.now()
    closing = _Closing(
        ledger=ledger,
        dossiers={each.tenant_id: each.closed(now=now) for each in accounts},
        closed={row["tenant_id"]: _closed(row["tenant_id"], row) for row in drafts},
        now=now,
    )
    changes = [closing.of(ask) for ask in asks]
    await books.write(connection, ledger)
    if closing.unknown:
        await queries.invoicing.want_usage(connection, sorted(closing.unknown), now=now)
    if closing.drafts:
        await queries.invoices.draft(connection, closing.drafts, now=now)
    return changes


@dataclass(frozen=True)
class _Closing:
    """What a batch works with.

    Attributes:
        ledger: of its tenants.
        dossiers: of their accounts, as they will be.
        closed: what is answered for those that are closed, or were before.
        now: when they are.
        drafts: of the final invoices.
        unknown: the tenants whose usage is not known yet.
    """

    ledger: Ledger
    dossiers: Mapping[str, Dossier]
    closed: dict[str, Fact]
    now: datetime
    drafts: list[Draft] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    def of(self, ask: contracts.CloseAccount) -> Changed:
        """Do one ask."""
        found = self.ledger.of(ask.tenant_id)
        if found is None:
            return _no_closing(ask, "unknown_account", "The tenant has no account.")
        if found.state == "ended" and ask.tenant_id in self.closed:
            return Changed(self.closed[ask.tenant_id])
        dossier = self.dossiers[ask.tenant_id]
        if wanted := dossier.wanted(self.now):
            stated_at = self._stated_at(dossier, wanted)
            if stated_at is None:
                self.unknown.add(ask.tenant_id)
                return _usage_pending(ask, usage_requested(ask.tenant_id, wanted, now=self.now))
            return self._close(found, dossier, stated_at)
        return self._close(found, dossier, None)

    def _stated_at(self, dossier: Dossier, wanted: Sequence[Period]) -> datetime | None:
        """Return until when the usage is known; None unless it was told after it was asked for."""
        asked_at = dossier.usage_wanted_at
        return None if asked_at is None else dossier.stated_at(wanted, since=asked_at)

    def _close(self, found: Subscription, dossier: Dossier, usage_stated_at: datetime | None) -> Changed:
        licences = self.ledger.licences_with(found)
        for each in (found, *licences):
            self.ledger.end(each, now=self.now)
        made = draft(
            dossier,
            dossier.lines(self.now),
            kind=CLOSING,
            closes_at=self.now,
            usage_stated_at=usage_stated_at,
        )
        self.drafts.append(made)
        answer = self.closed[found.tenant_id] = _closed(found.tenant_id, made)
        return Changed(answer, Before.image(found, licences, invoice_id=made["invoice_id"]))


def _closed(tenant_id: str, draft: Mapping[str, Any] | asyncpg.Record) -> Fact:
    return contracts.AccountClosed(
        tenant_id=tenant_id,
        invoice_id=str(draft["invoice_id"]),
        currency=draft["currency"],
        total=f"{draft['total']:f}",
    )


def _no_closing(ask: contracts.CloseAccount, code: str, detail: str) -> Changed:
    return Changed(contracts.AccountClosingRefused(tenant_id=ask.tenant_id, code=code, detail=detail))


def _usage_pending(ask: contracts.CloseAccount, request: contracts.UsageRequested) -> Changed:
    refusal = contracts.AccountClosingRefused(
        tenant_id=ask.tenant_id,
        code="usage_pending",
        detail="What the tenant has used is not known yet; it is asked for.",
        retryable=True,
    )
    return Changed(refusal, tells=(request,))


async def reopen_accounts(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Take the draft back and charge on as if the account had never been closed."""
    await books.bring_back(connection, restorations, Before, Ledger.restore)
    return [contracts.AccountReopened(tenant_id=each.tenant_id) for each in restorations]

"""Bugs in the services that take part: residue, doubles, money."""

from tests.mutants.defect import Defect

_TENANT = ("services/tenant/tests/test_changes.py", "services/tenant/tests/test_handlers.py")
_TIERS = ("services/tenant/tests/test_tier_meanings.py",)
_PRODUCTS = ("services/tenant/tests/test_product_meanings.py",)
_CATALOG = ("services/tenant/tests/test_tiers.py", "services/tenant/tests/test_products.py")
_IDENTITY = (
    "services/identity/tests/test_handlers.py",
    "services/identity/tests/test_blocking_and_purging.py",
    "services/identity/tests/test_changing_administrators.py",
)
_SIGN_IN = "services/identity/tests/test_sign_in.py"
_FEDERATION = ("services/identity/tests/test_federation.py",)
_IN_COGNITO = ("services/identity/tests/test_in_cognito.py",)
_BILLING = ("services/billing/tests/test_base_fees.py", "services/billing/tests/test_changes.py")
_LICENCES = ("services/billing/tests/test_licences.py",)
_METRICS = ("services/metrics/tests/test_handlers.py",)
_AUDIT = ("services/metrics/tests/test_audit.py", "services/metrics/tests/test_audit_api.py")
_JOBS = ("services/provisioning/tests/test_jobs.py",)
_PROVISIONING = ("services/provisioning/tests/test_handlers.py", "services/provisioning/tests/test_lifecycles.py")

DEFECTS = (
    Defect(
        "an undo overwrites what was changed since",
        "services/tenant/changes.py",
        '            if terms | befores[tenant_id]["changed_to"] == terms and terms["state"] != State.ARCHIVED\n',
        "",
        _TENANT,
    ),
    Defect(
        "taking a registration back leaves the record",
        "services/tenant/handlers.py",
        "    await queries.deregister(connection, [ask.tenant_id for ask in asks])\n",
        "",
        _TENANT[::-1],
    ),
    Defect(
        "an undo of a change of tier gives a tenant what the catalog says by now",
        "services/tenant/changes.py",
        '_before(verdict["terms"], verdict["wanted"])',
        '_before(verdict["terms"], wanted)',
        _TIERS,
    ),
    Defect(
        "a tenant is shown as the catalog says by now",
        "services/tenant/queries/tenants.py",
        "           tenant.tier_meaning ->> 'isolation' AS isolation,\n",
        "           (SELECT tier.isolation FROM tier WHERE tier.name = tenant.tier) AS isolation,\n",
        _TIERS,
    ),
    Defect(
        "a tenant never gets what its tier has come to mean",
        "services/tenant/queries/tenants.py",
        "WHEN meaning(offer) = found.terms -> 'tier_meaning' THEN",
        "WHEN ask.wanted ->> 'tier' = found.terms ->> 'tier' THEN",
        _TIERS,
    ),
    Defect(
        "another version of a product means to a tenant what the catalog says by now",
        "services/tenant/queries/tenants.py",
        "coalesce(kept.meaning, meaning(given))",
        "meaning(given)",
        _PRODUCTS,
    ),
    Defect(
        "a product that an undo brings back means what the catalog says by now",
        "services/tenant/queries/tenants.py",
        "            SELECT target.tenant_id, chosen.name, chosen.version, target.product_meanings -> chosen.name\n",
        "            SELECT target.tenant_id, chosen.name, chosen.version, NULL\n",
        _PRODUCTS,
    ),
    Defect(
        "two change the catalog at once",
        "services/tenant/catalog/editing.py",
        "            await queries.lock(change.connection)\n",
        "",
        _CATALOG,
    ),
    Defect(
        "a changed catalog is not announced",
        "services/tenant/catalog/editing.py",
        "            if change.facts:\n",
        "            if not change.facts:\n",
        _CATALOG,
    ),
    Defect(
        "what is retired can be changed",
        "services/tenant/catalog/tiers.py",
        '    if found["retired_at"] is not None:\n        raise conflict("tier_retired"',
        '    if found["edition"] is None:\n        raise conflict("tier_retired"',
        _CATALOG,
    ),
    Defect(
        "a user who belongs nowhere any more is kept",
        "services/identity/handlers.py",
        "    await queries.delete_users_without_membership(connection, [user_id for _, user_id in members])\n",
        "",
        _IDENTITY,
    ),
    Defect(
        "a block that was there before is taken for one's own",
        "services/identity/handlers.py",
        '            {"block": None} if ask.tenant_id in told else None,\n',
        '            {"block": None},\n',
        _IDENTITY[1:],
    ),
    Defect(
        "a refresh token is good twice",
        "services/identity/oauth.py",
        '            if session["is_used"] or now >= session["expires_at"]:\n',
        '            if now >= session["expires_at"]:\n',
        (_SIGN_IN,),
    ),
    Defect(
        "a code is exchanged whatever was announced",
        "services/identity/oauth.py",
        '        if not hmac.compare_digest(challenge_of(verifier), row["code_challenge"]):\n',
        "        if not verifier:\n",
        (_SIGN_IN,),
    ),
    Defect(
        "whoever is blocked keeps its sessions",
        "services/identity/handlers.py",
        "    changed = await end_access_to_tenants(connection, list(tenant_ids))\n",
        "    changed: dict[str, Any] = {}\n",
        ("services/identity/tests/test_sessions.py",),
    ),
    Defect(
        "attempts at once are counted as one",
        "services/identity/throttle.py",
        "    await queries.count(connection, attempt.subjects, now=now, first=FIRST_WAIT, longest=LONGEST_WAIT)\n",
        "",
        ("services/identity/tests/test_throttle.py",),
    ),
    Defect(
        "whom a tenant's own provider has recognised gets in everywhere",
        "services/identity/queries/sessions.py",
        "ELSE provider.tenant_id = {realm} END",
        "ELSE true END",
        _FEDERATION,
    ),
    Defect(
        "a tenant's own provider speaks for anybody's address",
        "services/identity/admitting.py",
        'if domain_of(recognised.email) not in provider["domains"]:',
        "if False:",
        _FEDERATION,
    ),
    Defect(
        "an address that has changed hands lets somebody else in",
        "services/identity/admitting.py",
        'if linked is None or linked["subject"] != subject:',
        "if False:",
        _FEDERATION,
    ),
    Defect(
        "an account is made in Cognito before it is written down here",
        "services/identity/inviting.py",
        """            await self._expect_account(tenant_id, found["user_id"])
            await directory.enrol(found["user_id"], email, chosen)
""",
        """            await directory.enrol(found["user_id"], email, chosen)
            await self._expect_account(tenant_id, found["user_id"])
""",
        _IN_COGNITO,
    ),
    Defect(
        "a pool whose making was not answered is made again",
        "services/identity/caretaking.py",
        'is_begun=row["is_begun"])',
        "is_begun=False)",
        _IN_COGNITO,
    ),
    Defect(
        "an account is charged on the day on which it is closed",
        "services/billing/statement/periods.py",
        "(day_of(until, zone) - day_of(since, zone)).days\n",
        "(day_of(until, zone) - day_of(since, zone)).days + 1\n",
        _BILLING,
    ),
    Defect(
        "half a cent is rounded to the even side",
        "services/billing/money.py",
        "EXACT = Context(prec=100, rounding=ROUND_HALF_UP)\n",
        'EXACT = Context(prec=100, rounding="ROUND_HALF_EVEN")\n',
        _BILLING,
    ),
    Defect(
        "a licence is charged on while its account is paused",
        "services/billing/changes.py",
        "    for each in (found, *licences):\n        ledger.pause(each, now=now)\n",
        "    ledger.pause(found, now=now)\n",
        _LICENCES,
    ),
    Defect(
        "what a dropped licence was charged for is not on the final invoice",
        "services/billing/queries/invoicing.py",
        "        FROM held JOIN charged_period AS past USING (subscription_id)\n",
        "        FROM held JOIN charged_period AS past USING (subscription_id) WHERE state <> 'ended'\n",
        _LICENCES,
    ),
    Defect(
        "an activation starts no licence that is being added",
        "services/billing/handlers.py",
        "    await queries.subscriptions.lock(connection, tenant_ids)\n    started",
        "    started",
        _LICENCES,
    ),
    Defect(
        "quotas that were changed stay changed",
        "services/metrics/handlers.py",
        "    await queries.quotas.replace(connection, {tenant_id: found[tenant_id] for tenant_id in tracked})\n",
        "",
        _METRICS,
    ),
    Defect(
        "an environment that is undone is forgotten, and what it consists of is kept",
        "services/provisioning/jobs/course.py",
        '    Operation.PROVISION: ("provision", "deprovision"),\n',
        '    Operation.PROVISION: ("provision", "inspect"),\n',
        _PROVISIONING,
    ),
    Defect(
        "what a step has made while it was taken back is forgotten",
        "services/provisioning/jobs/settling.py",
        "    kept = reached.environment or environment\n",
        "    kept = environment\n",
        _JOBS,
    ),
    Defect(
        "a worker that has lost its claim stores what it did",
        "services/provisioning/queries/jobs.py",
        "AS held (job_id, claim) USING (job_id, claim)\n        ORDER BY job_id FOR UPDATE OF job",
        "AS held (job_id, lost) USING (job_id)\n        ORDER BY job_id FOR UPDATE OF job",
        _JOBS,
    ),
    Defect(
        "two jobs of one tenant are worked on at once",
        "services/provisioning/queries/jobs.py",
        "AND earlier.due_at IS NOT NULL)",
        "AND false)",
        _JOBS,
    ),
    Defect(
        "what cannot be made is tried for ever",
        "services/provisioning/jobs/course.py",
        "    if is_bounded and job.attempts >= MOST_ATTEMPTS:\n",
        "    if False:\n",
        _JOBS,
    ),
    Defect(
        "an entry of the audit trail is not sealed with the one before it",
        "services/metrics/audit.py",
        '        "previous_hash": end.hash,\n',
        '        "previous_hash": BEGINNING,\n',
        _AUDIT,
    ),
    Defect(
        "an entry that is one too many in the audit trail is not noticed",
        "services/metrics/audit.py",
        "            self.broken_at = end.seq + 1\n",
        "            self.broken_at = None\n",
        _AUDIT,
    ),
    Defect(
        "a tenant sees the audit trail of another one",
        "services/metrics/api/audit.py",
        "EntryFilter(asker.narrowed(tenant_id), actor",
        "EntryFilter(tenant_id or asker.tenant_id, actor",
        _AUDIT[::-1],
    ),
    Defect(
        "an accepted order is not in the audit trail",
        "services/onboarding/intake.py",
        "        outgoing.append(self._kernel.dispatch.tell(decision))\n",
        "",
        ("services/onboarding/tests/test_decisions.py",),
    ),
    Defect(
        "who is found far behind after an outage goes at once",
        "services/billing/overdue.py",
        "        step, since = before + 1, now\n",
        "        step, since = reached, now\n",
        ("services/billing/tests/test_overdue.py",),
    ),
)

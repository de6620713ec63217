"""Bugs in the saga engine, in how requests are accepted, and in how workflows end."""

from tests.mutants.defect import Defect

_SAGA = "services/onboarding/saga.py"
_ENGINE = "services/onboarding/engine.py"
_INTAKE = "services/onboarding/intake.py"
_QUERIES = "services/onboarding/queries.py"
_TESTS = "services/onboarding/tests/"
_SAGA_TESTS = (_TESTS + "test_saga.py", _TESTS + "test_saga_properties.py")

_PROGRESS_TESTS = (_TESTS + "test_saga_progress.py", _TESTS + "test_saga_properties.py")

_PRESSURE = "services/onboarding/pressure.py"
_PRESSURE_TESTS = (_TESTS + "test_pressure.py",)

_LIFECYCLE_TESTS = (_TESTS + "test_lifecycles.py",)

DEFECTS = (
    Defect(
        "a product is licensed only where it has an environment of its own",
        "services/onboarding/definition.py",
        "for each in licensed if each.plan is not None)\n",
        "for each in licensed if each.plan is not None and each.isolation is not None)\n",
        _LIFECYCLE_TESTS,
    ),
    Defect(
        "a tenant that has no products by now has those that were ordered",
        "services/onboarding/definition.py",
        " if told is None else told\n",
        " if not told else told\n",
        _LIFECYCLE_TESTS,
    ),
    Defect(
        "what is left of the products that a tenant keeps is removed",
        "services/onboarding/lifecycles/change_products.py",
        "    kept = tuple(product.name for product in context.products())\n",
        "    kept: tuple[str, ...] = ()\n",
        _LIFECYCLE_TESTS,
    ),
    Defect(
        "there is room for everybody",
        _PRESSURE,
        "        return self.taken >= self._limit * (1 + RESERVED * urgent)\n",
        "        return False\n",
        _PRESSURE_TESTS,
    ),
    Defect(
        "all that arrive while the first are read are read",
        _PRESSURE,
        "        self._let_in += 1\n",
        "        self._let_in += 0\n",
        _PRESSURE_TESTS,
    ),
    Defect(
        "what is being accepted is forgotten at each look",
        _PRESSURE,
        "        self._entering += 1\n",
        "        self._under_way += 1\n",
        _PRESSURE_TESTS,
    ),
    Defect(
        "what came first is undone first",
        _SAGA,
        "step.status is not StepStatus.UNDOING and self._is_last(planned_step.name):\n",
        "step.status is not StepStatus.UNDOING:\n",
        _SAGA_TESTS,
    ),
    Defect(
        "the order of undoing does not reach across a step that waits",
        _SAGA,
        "        return all(not self._steps[each].may_have_effect and self._is_last(each) for each in followers)\n",
        "        return all(not self._steps[each].may_have_effect for each in followers)\n",
        _SAGA_TESTS,
    ),
    Defect(
        "a step that never answered is not undone",
        _SAGA,
        "            attempts=attempt,\n            may_have_effect=True,\n",
        "            attempts=attempt,\n            may_have_effect=False,\n",
        _SAGA_TESTS,
    ),
    Defect(
        "a workflow is compensated before everything is undone",
        _SAGA,
        "        if not any(step.may_have_effect for step in self._steps.values()):\n",
        "        if not all(step.may_have_effect for step in self._steps.values()):\n",
        _SAGA_TESTS,
    ),
    Defect(
        "a late success is accepted while the workflow is undone",
        _SAGA,
        "        if step.status is not StepStatus.RUNNING or not self._is_going_forward:\n"
        '            self._record("late_success"',
        '        if step.status is StepStatus.SUCCEEDED:\n            self._record("late_success"',
        _SAGA_TESTS,
    ),
    Defect(
        "what cannot be undone is cancelled all the same",
        _SAGA,
        '        if self._is_past_pivot:\n            raise ForbiddenError("past_point_of_no_return"',
        '        if False:\n            raise ForbiddenError("past_point_of_no_return"',
        _SAGA_TESTS,
    ),
    Defect(
        "past the pivot a step gives up",
        _SAGA,
        "        if self._is_past_pivot or attempts < plan.attempts:\n",
        "        if attempts < plan.attempts:\n",
        _SAGA_TESTS,
    ),
    Defect(
        "nobody is called when an undo does not succeed",
        _SAGA,
        '        self._call_for_attention(name, attempts, "the undo does not succeed")\n',
        "",
        _SAGA_TESTS,
    ),
    Defect(
        "a step that is refused for the moment is tried without limit",
        _SAGA,
        "(answer.retryable and step.attempts < self._plan[answer.step].attempts)",
        "answer.retryable",
        _SAGA_TESTS,
    ),
    Defect(
        "what tells that it is at work is asked again all the same",
        _SAGA,
        "        if due_at > step.due_at:\n",
        "        if due_at < step.due_at:\n",
        _PROGRESS_TESTS,
    ),
    Defect(
        "what tells nothing new is waited for for ever",
        _SAGA,
        "min(self._now + wait, step.progress.at + timedelta(seconds=LONGEST_STANDSTILL))",
        "self._now + wait",
        _PROGRESS_TESTS,
    ),
    Defect(
        "a history grows with whatever is told of progress",
        _SAGA,
        " and last.lines < MOST_PROGRESS)",
        ")",
        _PROGRESS_TESTS,
    ),
    Defect(
        "an undo goes on with what was told of its step",
        _SAGA,
        "                self._change(planned_step.name, progress=None)\n",
        "",
        _PROGRESS_TESTS,
    ),
    Defect(
        "word of progress comes too late and counts",
        _SAGA,
        "        if step.due is not Due.TIMEOUT:\n            return\n        if _is_news",
        "        if step.due_at is None:\n            return\n        if _is_news",
        _PROGRESS_TESTS,
    ),
    Defect(
        "a service keeps a workflow waiting for another one",
        _ENGINE,
        "    if answer.publisher != step.service:\n",
        "    if not answer.publisher:\n",
        (_TESTS + "test_progress.py",),
    ),
    Defect(
        "how far a step is, is not stored",
        _QUERIES,
        "            progress = new.progress\n",
        "            progress = step.progress\n",
        (_TESTS + "test_progress.py",),
    ),
    Defect(
        "the deadline is ignored",
        _SAGA,
        "        if self._deadline_at is None or self._deadline_at > self._now or self._status.is_final:\n",
        "        if self._deadline_at is not None or self._status.is_final:\n",
        _SAGA_TESTS,
    ),
    Defect(
        "what does not change is not written down",
        _SAGA,
        '            self._record("late_undo", answer.step, message_id=answer.ask_id)\n',
        "",
        _SAGA_TESTS,
    ),
    Defect(
        "timers of a workflow are taken by two replicas",
        _QUERIES,
        "        ORDER BY id\n        FOR UPDATE SKIP LOCKED\n",
        "        ORDER BY id\n",
        (_TESTS + "test_timers.py",),
    ),
    Defect(
        "the name of an undone onboarding stays taken",
        "services/onboarding/accounts.py",
        "        await queries.free_names(connection, fruitless)\n",
        "        pass\n",
        (_TESTS + "test_intake.py",),
    ),
    Defect(
        "another request with the same key gets the first one's answer",
        _INTAKE,
        '    if row["fingerprint"] == fingerprint:\n',
        '    if row["fingerprint"]:\n',
        (_TESTS + "test_intake.py",),
    ),
    Defect(
        "a request is answered before it is on disk",
        _INTAKE,
        "            await self._store(connection, started)\n        await failpoint",
        "            for each in started:\n"
        "                each.application.settle(Accepted(each.answer))\n"
        "            await self._store(connection, started)\n        await failpoint",
        (_TESTS + "test_intake.py",),
    ),
    Defect(
        "asks of a new workflow are sent from memory only",
        _INTAKE,
        "        await outbox.insert(connection, outgoing, now=self._kernel.ports.clock.now())\n",
        "",
        (_TESTS + "test_intake.py",),
    ),
    Defect(
        "one service answers for another's step",
        _ENGINE,
        "    if answer.to is None or answer.to not in {plan[answer.step].ask, plan[answer.step].undo}:\n",
        "    if False:\n",
        (_TESTS + "test_handlers.py",),
    ),
    Defect(
        "a running workflow takes the newest definition",
        _ENGINE,
        "        definition = self._definitions[stored.definition, stored.version]\n",
        "        definition = self._definitions[max(key for key in self._definitions if stored.definition in key)]\n",
        (_TESTS + "test_versions.py",),
    ),
    Defect(
        "the end of a contract is told again and again",
        "services/onboarding/expiration.py",
        '    return Review(_begin(expiration), warns=account["warned_for"] != expiration)\n',
        "    return Review(now, warns=True)\n",
        (_TESTS + "test_expiration.py",),
    ),
    Defect(
        "who has paid is let in although the contract has ended",
        "services/onboarding/reviews.py",
        " and not (is_kept_out and _lets_in(each))]",
        "]",
        (_TESTS + "test_overdue.py",),
    ),
    Defect(
        "who pays while the off-boarding is being ordered goes all the same",
        "services/onboarding/orders.py",
        '"suspended_for", "overdue")',
        '"suspended_for")',
        (_TESTS + "test_overdue.py",),
    ),
)

"""Where operators step in: their actions are inputs of the saga like any other, with their names in the history."""

from dataclasses import replace
from uuid import UUID

from services.onboarding import decisions
from services.onboarding.engine import Acted, Engine
from services.onboarding.saga import Action, ForbiddenError, UnknownStepError
from services.onboarding.storage import Stored
from services.onboarding.watch import Watch
from shared.audit import Decider
from shared.http import FieldError, Problem
from shared.messaging import outbox
from shared.messaging.event import Outgoing
from shared.messaging.subscriptions import NewerCodeNeededError
from shared.postgres import CONTENTION, transaction
from shared.service import Kernel

_ATTEMPTS = 5


class Operators:
    """Lets operators act on workflows."""

    def __init__(self, kernel: Kernel, engine: Engine, watch: Watch) -> None:
        self._kernel = kernel
        self._engine = engine
        self._watch = watch

    async def act(self, workflow_id: UUID, action: Action, decider: Decider) -> Stored | None:
        """Take an action of somebody into account and return the workflow, or None if there is none.

        Raises:
            Problem: 409 where the state of the workflow forbids it, 422 where it names a step that there is not, 503
                where only newer code knows the steps.
        """
        try:
            acted = await self._act_patiently(workflow_id, action, decider)
        except ForbiddenError as error:
            raise Problem(409, code=error.code, detail=error.detail) from error
        except UnknownStepError as error:
            detail = f"The workflow has no step {error}."
            raise Problem(422, code="unknown_step", detail=detail, errors=[FieldError("/step", detail)]) from error
        except NewerCodeNeededError as error:
            detail = "A newer release has begun the workflow, and is being deployed. Try again in a minute."
            raise Problem(503, code="newer_code_needed", detail=detail, headers={"Retry-After": "60"}) from error
        if acted is None:
            return None
        self._watch.wake()
        await self._kernel.relay.send(acted.outgoing)
        return acted.after

    async def _act_patiently(self, workflow_id: UUID, action: Action, decider: Decider) -> Acted | None:
        """Act, again a few times where another transaction was in the way."""
        attempt = 1
        while True:
            try:
                return await self._act(workflow_id, action, decider)
            except CONTENTION:
                if attempt == _ATTEMPTS:
                    raise
                attempt += 1

    async def _act(self, workflow_id: UUID, action: Action, decider: Decider) -> Acted | None:
        async with transaction(self._kernel.pool) as connection:
            acted = await self._engine.act(connection, workflow_id, action)
            if acted is not None:
                acted = replace(acted, outgoing=[*acted.outgoing, self._decision(acted, action, decider)])
                await outbox.insert(connection, acted.outgoing, now=self._kernel.ports.clock.now())
            return acted

    def _decision(self, acted: Acted, action: Action, decider: Decider) -> Outgoing:
        ports = self._kernel.ports
        made = decisions.acted(
            acted.before.workflow, acted.after.workflow, action, decider, clock=ports.clock, ids=ports.ids
        )
        return self._kernel.dispatch.tell(made)

"""Where operators step in: their actions are inputs of the saga like any other, with their names in the history."""

from uuid import UUID

from services.onboarding.engine import Engine
from services.onboarding.saga import Action, ForbiddenError, UnknownStepError
from services.onboarding.storage import Stored
from services.onboarding.watch import Watch
from shared.http import FieldError, Problem
from shared.messaging import outbox
from shared.messaging.event import Outgoing
from shared.postgres import CONTENTION, transaction
from shared.service import Kernel

_ATTEMPTS = 5


class Operators:
    """Lets operators act on workflows."""

    def __init__(self, kernel: Kernel, engine: Engine, watch: Watch) -> None:
        self._kernel = kernel
        self._engine = engine
        self._watch = watch

    async def act(self, workflow_id: UUID, action: Action) -> Stored | None:
        """Take an action into account and return the workflow, or None if there is none.

        Raises:
            Problem: 409 where the state of the workflow forbids it, 422 where it names a step that there is not.
        """
        try:
            acted = await self._act_patiently(workflow_id, action)
        except ForbiddenError as error:
            raise Problem(409, code=error.code, detail=error.detail) from error
        except UnknownStepError as error:
            detail = f"The workflow has no step {error}."
            raise Problem(422, code="unknown_step", detail=detail, errors=[FieldError("/step", detail)]) from error
        if acted is None:
            return None
        stored, outgoing = acted
        self._watch.wake()
        await self._kernel.relay.send(outgoing)
        return stored

    async def _act_patiently(self, workflow_id: UUID, action: Action) -> tuple[Stored, list[Outgoing]] | None:
        """Act, again a few times where another transaction was in the way."""
        attempt = 1
        while True:
            try:
                return await self._act(workflow_id, action)
            except CONTENTION:
                if attempt == _ATTEMPTS:
                    raise
                attempt += 1

    async def _act(self, workflow_id: UUID, action: Action) -> tuple[Stored, list[Outgoing]] | None:
        async with transaction(self._kernel.pool) as connection:
            acted = await self._engine.act(connection, workflow_id, action)
            if acted is not None:
                await outbox.insert(connection, acted[1], now=self._kernel.ports.clock.now())
            return acted

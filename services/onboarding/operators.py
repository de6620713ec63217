"""Where operators step in: their actions are inputs of the saga like any other, with their names in the history."""

from uuid import UUID

from services.onboarding.engine import Engine
from services.onboarding.saga import Action, ForbiddenError, UnknownStepError
from services.onboarding.storage import Stored
from services.onboarding.watch import Watch
from shared.http import FieldError, Problem
from shared.messaging import outbox
from shared.postgres import transaction
from shared.service import Kernel


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
            async with transaction(self._kernel.pool) as connection:
                acted = await self._engine.act(connection, workflow_id, action)
                if acted is None:
                    return None
                stored, outgoing = acted
                await outbox.insert(connection, outgoing, now=self._kernel.ports.clock.now())
        except ForbiddenError as error:
            raise Problem(409, code=error.code, detail=error.detail) from error
        except UnknownStepError as error:
            detail = f"The workflow has no step {error}."
            raise Problem(422, code="unknown_step", detail=detail, errors=[FieldError("/step", detail)]) from error
        self._watch.wake()
        await self._kernel.relay.send(outgoing)
        return stored

"""How so many requests are made of six documents and five identities, the same ones each time."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from tests.openapi.premises import ADMINISTRATOR, NOBODY, PERSON, TENANT_ADMINISTRATOR, TENANT_USER, Premises
from tests.openapi.runs import Outcome, Run
from tests.openapi.senders import Sender, carried_out, senders

REQUESTS = 12_000
SEED = 20

_THOROUGH = (ADMINISTRATOR, TENANT_ADMINISTRATOR)
"""Those who send every case that the schemas make a difference between, and what follows from answers."""

_OFTEN = (*_THOROUGH, TENANT_USER, NOBODY)
_CASES = 15
_SEQUENCES = 10
_MOST_ROUNDS = 5
_AT_ONCE = 1 + (os.cpu_count() or 1)


@dataclass(frozen=True)
class Campaign:
    """All that is sent to a running system.

    Attributes:
        origin: where it answers.
    """

    origin: str
    premises: Premises

    async def carry_out(self) -> list[Outcome]:
        """Send at least `REQUESTS` and return what came of them."""
        first = [
            *self._runs((PERSON,), ("examples", "fuzzing"), cases=_CASES, seed=SEED),  # while the token is good
            *self._runs(_THOROUGH, ("coverage", "stateful"), cases=_SEQUENCES, seed=SEED),
        ]
        async with senders(_AT_ONCE) as crew:
            outcomes = await carried_out(crew, first)
            for turn in range(_MOST_ROUNDS):
                if (missing := REQUESTS - sum(outcome.requests for outcome in outcomes)) <= 0:
                    break
                outcomes += await self._sent_more(crew, missing, seed=SEED + turn)
        return outcomes

    async def _sent_more(self, crew: Sequence[Sender], missing: int, *, seed: int) -> list[Outcome]:
        """Send about so many more, the same number for each operation and identity."""
        cases = math.ceil(missing / (len(self.premises.operations) * len(_OFTEN)))
        return await carried_out(crew, self._runs(_OFTEN, ("fuzzing",), cases=cases, seed=seed))

    def _runs(self, identities: Sequence[str], phases: Sequence[str], *, cases: int, seed: int) -> list[Run]:
        return [
            Run(
                service=service,
                identity=identity,
                document=document,
                origin=self.origin,
                authorization=self.premises.authorizations[identity],
                phases=phases,
                cases=cases,
                seed=seed,
                words=self.premises.words,
                spared=self.premises.spared,
                examples=self.premises.examples,
            )
            for identity in identities
            for service, document in self.premises.documents.items()
        ]

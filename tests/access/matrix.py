"""All cells at once: every question is asked, and every answer judged."""

import asyncio
from collections.abc import Mapping, Sequence

import httpx2

from tests.access.cells import AIMS, Aim, Answer, Cell, Credential, Judge, ask, owner_of
from tests.access.routes import Owner, Route, Sent

AT_ONCE = 16
"""How many requests are under way at a time."""

Answers = Mapping[Cell, Answer]


async def heard(
    client: httpx2.AsyncClient,
    routes: Sequence[Route],
    credentials: Sequence[Credential],
    *,
    owners: Mapping[Aim, Owner],
    throwaway: Mapping[Aim, Owner],
) -> Answers:
    """Ask every question and return the answers; what changes nothing and is the same request is sent once.

    Args:
        owners: whose things members and strangers ask for.
        throwaway: whose things operators ask for, and may change.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    under_way: dict[str, asyncio.Task[Answer]] = {}

    async def asked(sent: Sent, credential: Credential) -> Answer:
        async with gate:
            return await ask(client, sent, credential)

    async def answered(cell: Cell) -> tuple[Cell, Answer]:
        owner = owner_of(cell, owners, throwaway)
        sent = cell.route.request(owner, as_oneself=cell.aim == "own")
        question = f"{cell}" if cell.route.is_writing else f"{cell.credential.name} {sent}"
        if question not in under_way:
            under_way[question] = asyncio.create_task(asked(sent, cell.credential))
        return cell, await under_way[question]

    cells = [Cell(route, each, aim) for route in routes for each in credentials for aim in AIMS]
    return dict(await asyncio.gather(*map(answered, cells)))


def leaks(judge: Judge, answers: Answers) -> list[str]:
    """Return everything that is wrong with answers, a line for each."""
    return [complaint for cell in answers for complaint in _complaints(judge, answers, cell)]


def _complaints(judge: Judge, answers: Answers, cell: Cell) -> Sequence[str]:
    def of(aim: Aim) -> Answer:
        return answers[Cell(cell.route, cell.credential, aim)]

    return list(judge.complaints(cell, answers[cell], of("absent"), of("own")))

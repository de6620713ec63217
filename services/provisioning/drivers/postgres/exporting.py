"""Exports: everything that a tenant keeps in its place, as lines of JSON."""

from services.provisioning.drivers.port import Sink
from services.provisioning.drivers.postgres.place import Place, Table
from services.provisioning.drivers.postgres.pool import SCHEMA
from shared.postgres import Connection

# Quoted where it must be, as a removal counts them.
_LABELS = """
    SELECT coalesce(array_agg(format('%I.%I', $1::text, name) ORDER BY position), '{}')
    FROM unnest($2::text[]) WITH ORDINALITY AS named (name, position)
"""


class ExpiredLoginError(Exception):
    """An export may lack rows, because its login expired while it was made."""


async def export_place(place: Place, tenant_id: str, write: Sink) -> dict[str, int]:
    """Write all rows of a tenant, table after table, under a login of the tenant's that is made for this alone.

    The same rows give the same bytes wherever they are.

    Raises:
        NoEnvironmentError: there is no such place.
        ExpiredLoginError: see there.
    """
    async with (
        place.session(writes=False) as session,
        session.transaction(isolation="repeatable_read", readonly=True),
    ):
        tables = sorted(await place.tables(), key=lambda table: table.name)
        labels = await session.fetchval(_LABELS, SCHEMA, [table.name for table in tables])
        rows = {
            label: await _export_table(session, place.schema, table, label, write)
            for label, table in zip(labels, tables, strict=True)
        }
        # An expired login sees no rows and gets no error. If it is valid now, it was so all the time.
        if await session.fetchval("SELECT tenancy.current_tenant()") != tenant_id:
            raise ExpiredLoginError(f"the export of tenant {tenant_id} took longer than its login is good for")
    return rows


async def _export_table(session: Connection, schema: str, table: Table, label: str, write: Sink) -> int:
    """Write the rows of a table in the order of its primary key; without one, in the order of what they say.

    Args:
        label: the name by which the table is known wherever it is.
    """
    query = await session.fetchval(
        """
        SELECT format(
            -- Line ends can only be white space of json columns, for in strings they are escaped.
            'SELECT translate(row_to_json(line)::text, E''\\n\\r'', ''  '')
             FROM (SELECT %L AS "table", stored AS "row" FROM %I.%I AS stored ORDER BY %s) AS line',
            $1::text, $2::text, $3::text,
            coalesce((SELECT string_agg(format('stored.%I', name), ', ' ORDER BY position)
                      FROM unnest($4::text[]) WITH ORDINALITY AS key (name, position)), 'stored::text COLLATE "C"')
        )
        """,
        label,
        schema,
        table.name,
        table.key,
    )
    # Neither delimiter nor quote is ever in JSON, so the lines leave as they are: COPY's text format escapes them.
    status = await session.copy_from_query(query, output=write, format="csv", delimiter="\x02", quote="\x01")
    return int(status.removeprefix("COPY "))

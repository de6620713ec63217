"""How all that a workflow does belongs to one trace, however long it takes and whoever makes it go on."""

from collections.abc import Sequence
from dataclasses import replace

from opentelemetry.trace import Span

from services.onboarding.saga import Advanced, Send
from services.onboarding.storage import Stored
from services.onboarding.workflow import Step, Workflow
from shared.messaging.event import Outgoing
from shared.tracing import spans
from shared.tracing.messages import trace_making
from shared.tracing.spans import Attributes

_SERVICE = "onboarding"


def begin(workflow: Workflow, *, because: str | None) -> Span:
    """Begin the span that all of a workflow follows from.

    Args:
        because: the traceparent of the request that wants it; None where nobody asked for it.
    """
    return spans.start(
        _SERVICE,
        f"begin {workflow.kind}",
        parent=because,
        attributes={
            "messaging.message.conversation_id": str(workflow.id),
            "tenure.tenant_id": workflow.tenant_id,
            "tenure.workflow_kind": workflow.kind,
        },
    )


def trace(stored: Stored, advanced: Advanced, outgoing: Sequence[Outgoing], *, because: str | None) -> Advanced:
    """Let what a workflow says be part of its trace, and remember of each step what it asks last.

    An ask that repeats another, or takes it back, is linked to it; one that several steps come before, to theirs.

    Args:
        stored: the workflow as it was before.
        outgoing: what it says, the asks first, in their order.
        because: the traceparent of what made it go on: an answer or an operator's request, of this trace or another;
            None where that was only time.
    """
    if not spans.is_on():
        return advanced
    parent, others = spans.at_home(because, stored.traceparent)
    kind = stored.workflow.kind
    asked: dict[str, Step] = {}
    for send, ask in zip(advanced.sends, outgoing, strict=False):
        attributes: Attributes = {"tenure.workflow_kind": kind, "tenure.attempt": send.attempt}
        trace_making([ask], because=parent, links=(*others, *_before(stored.workflow, send)), attributes=attributes)
        traceparent = spans.traceparent_of(ask.span) if ask.span else None
        asked[send.step] = replace(advanced.workflow.steps[send.step], traceparent=traceparent)
    trace_making(outgoing, because=parent, links=others, attributes={"tenure.workflow_kind": kind})
    steps = {**advanced.workflow.steps, **asked}
    return replace(advanced, workflow=replace(advanced.workflow, steps=steps))


def _before(workflow: Workflow, send: Send) -> list[str]:
    """Return the traceparents of the asks that one comes after: the step's own last, and those of several steps."""
    planned = next(each for each in workflow.plan if each.name == send.step)
    joined = planned.after if len(planned.after) > 1 and send.ask == planned.ask else ()
    known = (workflow.steps[name].traceparent for name in (send.step, *joined))
    return [each for each in known if each is not None]

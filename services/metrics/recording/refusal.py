"""Why an event is not taken."""


class RefusedError(Exception):
    """An event is not taken, and nothing of it is kept.

    Args:
        code: stable, for machines.
        detail: a sentence, for people.
        pointer: where in the event the reason is; None where it is of no one place.
    """

    def __init__(self, code: str, detail: str, pointer: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.pointer = pointer

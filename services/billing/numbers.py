"""How an invoice's number is written, wherever people see it."""


def invoice_number(number: int) -> str:
    """Write it with eight digits, or more where it has more."""
    return f"{number:08d}"

"""What an account owes, and what its next invoice says: pure functions of what was charged, agreed, used and billed.

The rule, complete:

1. Days and months are those of the calendar in the account's time zone. What a part of a month costs is `proration`'s
   to say.
2. A stretch is charged by the version of its plan that it names, at the amount agreed; from the moment on at which a
   later version reaches it, by the latest one that has, at that one's amount.
3. By a version that prorates by day, a day is charged once or not at all: by what is in force at its end, the midnight
   that closes it. So the day of activation is charged, the day of a pause or of the closing is not, and the day of a
   change belongs to what comes after it. Neighbouring days of one product, plan, version and amount are one run,
   whatever came between them on one day.
4. By a version that prorates by second, exactly its time is charged; but none of it in a day that another version
   charges as a day.
5. The first ``trial_days`` days since a product was charged first, that day included, cost no base fee, charged or
   paused. Where versions differ in it, that of each day counts. Such days make no line.
6. The base fee of each run in a month is one item: the monthly amount times its days, divided by those of the month; or
   seconds by seconds. It is due when the month is over, or, in a version that pays in advance, when the month has begun
   and the trial is over. What runs then runs to the month's end, as far as is known.
7. What is used in a month is priced as a whole when the month is over, trial or not, by the version that each product
   was charged by last in it: what exceeds ``included``, and ``minimum`` at least, for the part of the month in which
   the product was on that plan. In a month in which it was charged on no day, usage costs nothing.
8. An invoice knows what has happened until it closes, whenever it is made. The first closes at the activation, so that
   what pays in advance is paid then; then one at the beginning of every month, and at the end of a trial after which
   is paid in advance. When an account is closed, all that it owes is due.
9. Each item is rounded by itself, half up, to the digits of the currency, and has a key. What all invoices say of a key
   sums up to what is owed for it: an invoice lists what was not billed yet and corrects what was billed otherwise. What
   is not owed any more is taken back. An item of 0.00 is listed once, with the first line that is not.
10. So many months are looked at as late usage can come from. What is older stays as it was billed.
11. An early invoice says what the usage of a month that is not over comes to so far, by the keys of rule 9; so the
    month's own invoice corrects it. Invoices that close before the end of the month do not look at it.

Stretches of one product do not overlap, so no moment is charged twice in one product: never is a day charged on which
the tenant was not active, nor are more days charged than it was active on.
"""

from services.billing.statement.account import Account, Usage
from services.billing.statement.closing import next_close, window_start
from services.billing.statement.items import Billed, Item
from services.billing.statement.periods import Month, month_of
from services.billing.statement.reconciling import lines, without_early
from services.billing.statement.targets import months_wanted, targets
from services.billing.statement.usage_fees import is_usage

__all__ = [
    "Account",
    "Billed",
    "Item",
    "Month",
    "Usage",
    "is_usage",
    "lines",
    "month_of",
    "months_wanted",
    "next_close",
    "targets",
    "window_start",
    "without_early",
]

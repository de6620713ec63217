"""What tenants may spend in a month: how much it is by now is looked at again and again, told, and acted upon.

What a tenant has spent is what the invoice at the end of its running month would say, with what was invoiced early of
that month. So base fees count as well as usage, and so do corrections of months before.
"""

from services.billing.spending.deciding import Action, Limit, Review, review
from services.billing.spending.limits import SpendingLimits
from services.billing.spending.watching import SpendingWatch

__all__ = ["Action", "Limit", "Review", "SpendingLimits", "SpendingWatch", "review"]

"""Every lifecycle of a tenant, one file each; read them top to bottom."""

from collections.abc import Mapping

from services.onboarding.definition import Definition
from services.onboarding.lifecycles.change_products import CHANGE_PRODUCTS, CHANGE_PRODUCTS_1
from services.onboarding.lifecycles.change_tier import CHANGE_TIER
from services.onboarding.lifecycles.join import JOIN
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.lifecycles.reactivate import REACTIVATE
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.lifecycles.update_account import UPDATE_ACCOUNT, UPDATE_ACCOUNT_1

CURRENT = (ONBOARD, JOIN, CHANGE_TIER, CHANGE_PRODUCTS, UPDATE_ACCOUNT, SUSPEND, REACTIVATE, OFFBOARD)
"""What new workflows run."""

EARLIER: tuple[Definition, ...] = (CHANGE_PRODUCTS_1, UPDATE_ACCOUNT_1)
"""What workflows may still run that were started by an earlier release; kept until none does."""

DEFINITIONS: Mapping[tuple[str, int], Definition] = {(each.name, each.version): each for each in (*EARLIER, *CURRENT)}
"""Every definition that a running workflow may have started with, by name and version."""

"""All planted defects."""

from tests.mutants import kernel, services, workflows

DEFECTS = (*kernel.DEFECTS, *workflows.DEFECTS, *services.DEFECTS)

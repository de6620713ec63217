"""All planted defects."""

from tests.mutants import kernel, services, usage, workflows

DEFECTS = (*kernel.DEFECTS, *workflows.DEFECTS, *services.DEFECTS, *usage.DEFECTS)

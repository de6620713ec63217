"""The documentation: pages that people write, and pages that the code writes (`python -m docs`)."""

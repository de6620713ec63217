"""Traces: what one request, or one workflow, has made happen in every service, as OpenTelemetry has it.

spans       what happens somewhere, and the W3C form in which it is referred to from elsewhere
messages    of the way of a message: created, sent, processed
requests    of HTTP requests
exporting   where spans go; nothing is traced before it says so
"""

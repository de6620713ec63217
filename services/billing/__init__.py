"""Billing: accounts, plans and subscriptions."""

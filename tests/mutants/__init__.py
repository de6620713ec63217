"""Deliberate bugs, planted one at a time, that show whether the tests would see them."""

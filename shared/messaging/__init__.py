"""Reliable messages between services: inbox, outbox, barrier, retry ladder and parking."""

"""Onboarding: runs workflows and tells everybody how they go."""

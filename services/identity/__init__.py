"""Identity: users, memberships and invitations."""

"""The kernel that carries the services; it knows none of them."""

"""What runs beside the services in the Compose stack: two jobs before them, and the pages of the one origin."""

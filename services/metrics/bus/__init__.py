"""Usage events over RabbitMQ, for applications that are on the bus anyway."""

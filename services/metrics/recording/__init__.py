"""How usage events are recorded: read, validated, evaluated by meters, added up, and kept, each once."""

"""What a run will need, from its config and the shape of its model alone: memory, tokens per second, hours."""

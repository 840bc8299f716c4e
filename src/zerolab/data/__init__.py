"""Questions and texts: their sources, and the templates that make prompts of questions."""

"""Questions, where they come from, and the templates that turn them into prompts."""

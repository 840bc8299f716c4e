"""What one step under each objective does to accuracy, lengths and truncation of a model, before any training."""

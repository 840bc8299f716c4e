"""Copies of metrics.jsonl elsewhere: TensorBoard, W&B, trackio. A convenience, so none of them may cost a run."""

"""`zerolab sample`: what a model does with a question, before or after training."""

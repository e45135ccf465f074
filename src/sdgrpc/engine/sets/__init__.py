"""The LoRA sets of a job, one after the other as its steps go."""

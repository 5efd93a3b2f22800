"""Labels from the user's own prompts: both tiers answer, a judge compares, and a score is fitted on the gain."""

"""How good scores are: measures with intervals, a report, and the commands that fit, score and evaluate."""

"""Stage 3: answers, verdicts, and what they say with how much certainty."""

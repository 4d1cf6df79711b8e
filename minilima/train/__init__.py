"""Stage 2: supervised fine-tuning with a thin `transformers.Trainer` subclass."""

"""Every family of models that people bring, as a tiny one with its own template, tokenizer's shape and architecture."""

"""The settings: schema, composition, what is valid."""

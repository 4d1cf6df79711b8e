"""From a config to what is built: what is planned before, and what is started meanwhile."""

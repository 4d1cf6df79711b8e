"""Language models as seen by the stages: requests go in, replies come out, and every reply is kept."""

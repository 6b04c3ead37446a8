"""The stages: one file, one stage."""

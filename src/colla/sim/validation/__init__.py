"""The validation of the paper, repeated: an activity simulation, then only the internal mechanisms (DESIGN section 12)."""

"""The laboratory: many simulations on all cores, resumable, and what is counted in them as tables and figures."""

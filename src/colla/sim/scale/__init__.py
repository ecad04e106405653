"""What a group costs and how quick it is as it grows: one world per size, measured; tables and a figure of all."""

"""Many runs beside one another: their table, and which differences are more than chance."""

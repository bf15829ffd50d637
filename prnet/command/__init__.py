"""How a command starts, speaks and ends: its arguments checked, its lines, bars and exit status."""

"""From masks to crops: extraction, and the store that training reads in random order."""

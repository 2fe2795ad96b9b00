"""Pure mathematics: torch or numpy in, numbers out. Every function is tested against a closed form."""

"""Pure tensor mathematics: no file, no clock, no environment."""

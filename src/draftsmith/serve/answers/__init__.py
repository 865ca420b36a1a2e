"""What comes back, in the shapes of OpenAI's API."""

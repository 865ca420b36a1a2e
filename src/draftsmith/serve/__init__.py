"""An OpenAI-compatible server: every parameter exact under speculation, or refused."""

"""One request: its prompt and parameters, the text that grows from them, and what comes back."""

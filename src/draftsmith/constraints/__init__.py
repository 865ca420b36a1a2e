"""Forms of texts: schemas, expressions and grammars, and which tokens may follow a prefix."""

"""The models of both papers, trained anew on text that Debian packages carry, and measured."""

"""Our own decoders: no modelling code of another library."""

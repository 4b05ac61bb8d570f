"""The Docker Engine API on a unix socket. Decodes, calls the engine, encodes; decides nothing."""

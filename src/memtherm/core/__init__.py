"""The engine: numpy in, numpy out.  No clock, file, process or thread; imports only `errors` and `units`."""
